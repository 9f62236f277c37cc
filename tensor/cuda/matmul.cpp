#include "tensor/kernels/matmul.h"

#include <algorithm>
#include <cassert>
#include <cstring>
#include <cublasLt.h>
#include <fmt/format.h>
#include <map>
#include <memory>

#include "tensor/cuda/runtime/runtime.h"
#include "tensor/cuda/shape_cache.h"
#include "tensor/gpu/arithmetic.h"
#include "tensor/kernels/elementwise.h"

namespace millrace::cuda {
namespace {

constexpr std::size_t kLargestWorkspace = 32 << 20;  // what NVIDIA advises for Hopper

/// cuBLASLt said no. Who knows the operation turns it into a MachineError.
struct Failure {
  cublasStatus_t status;
};

void check(cublasStatus_t status) {
  if (status != CUBLAS_STATUS_SUCCESS) {
    throw Failure{status};
  }
}

template <auto destroy>
struct Destroy {
  template <typename T>
  void operator()(T* made) const {
    destroy(made);
  }
};
using Handle = std::unique_ptr<cublasLtContext, Destroy<cublasLtDestroy>>;
using Operation = std::unique_ptr<cublasLtMatmulDescOpaque_t, Destroy<cublasLtMatmulDescDestroy>>;
using Layout = std::unique_ptr<cublasLtMatrixLayoutOpaque_t, Destroy<cublasLtMatrixLayoutDestroy>>;
using Preference =
    std::unique_ptr<cublasLtMatmulPreferenceOpaque_t, Destroy<cublasLtMatmulPreferenceDestroy>>;

template <typename Pointer, typename Create, typename... Arguments>
Pointer make(Create create, Arguments... arguments) {
  typename Pointer::pointer made = nullptr;
  check(create(&made, arguments...));
  return Pointer(made);
}

/// This thread's handle for the device, which must be the current one.
cublasLtHandle_t handle(int device) {
  thread_local std::map<int, Handle> handles;
  Handle& place = handles[device];
  if (place == nullptr) {
    place = make<Handle>(cublasLtCreate);
  }
  return place.get();
}

cudaDataType_t element_type(DType dtype) {
  switch (dtype) {
    case DType::f32:
      return CUDA_R_32F;
    case DType::bf16:
      return CUDA_R_16BF;
    case DType::f16:
      return CUDA_R_16F;
    case DType::f64:
      return CUDA_R_64F;
    default:
      throw InputError("matmul: got type {}, expected a floating type on the GPU: convert with to()", dtype);
  }
}

/// Of what cuBLASLt has, what we need: factors of one type, and a product of theirs, or in f32 of half ones.
void check_types(DType a, DType b, DType out) {
  const bool widens = (a == DType::bf16 || a == DType::f16) && out == DType::f32;
  if (a != b || (a != out && !widens)) {
    throw InputError(
        "matmul: got types {} and {} for a result in {}, expected one type, or two bf16 or two f16 for a "
        "result in f32 (convert with to())",
        a, b, out);
  }
}

/// A matrix, or equal strides of them, as cuBLASLt sees memory: column after column. A row-major matrix is
/// its own transpose there, so the product is computed transposed: out^T = b^T a^T.
struct Matrix {
  bool is_plain;  ///< Rows lie side by side, which needs no transposition in out^T = b^T a^T.
  std::int64_t rows, columns, leading, batch_stride;
};

Matrix matrix_of(const Tensor& x) {
  const std::int64_t rows = x.size(-2), columns = x.size(-1), row = x.strides()[-2], column = x.strides()[-1];
  const std::int64_t batch_stride = x.dim() == 3 ? x.strides()[0] : 0;
  const bool is_plain = (column == 1 || columns == 1) && (row >= columns || rows == 1);
  // A single row or column has no meaningful stride, but the leading dimension must still be large enough.
  return is_plain ? Matrix{true, columns, rows, std::max(row, columns), batch_stride}
                  : Matrix{false, rows, columns, std::max(column, rows), batch_stride};
}

/// Whether cuBLASLt can read the matrix: rows without gaps, or columns without gaps. The first test covers a
/// single column.
bool is_blas_order(const Tensor& x) {
  const std::int64_t rows = x.size(-2), columns = x.size(-1), row = x.strides()[-2], column = x.strides()[-1];
  return ((column == 1 || columns == 1) && (row >= columns || rows == 1)) ||
         ((row == 1 || rows == 1) && column >= rows);
}

/// What cuBLASLt may assume of an address.
std::uint32_t alignment_of(const Tensor& x) {
  const std::uintptr_t bits = reinterpret_cast<std::uintptr_t>(x.raw()) | 16;
  return static_cast<std::uint32_t>(bits & (~bits + 1));
}

struct Product {
  Operation operation;
  Layout left, right, out;  ///< In cuBLASLt's order: left is b, right is a.
  bool adds_bias = false;
  cublasLtMatmulAlgo_t algorithm{};
  std::size_t workspace_bytes = 0;
};

template <typename T>
void set(const Operation& operation, cublasLtMatmulDescAttributes_t name, const T& value) {
  check(cublasLtMatmulDescSetAttribute(operation.get(), name, &value, sizeof value));
}

template <typename T>
void set(const Preference& preference, cublasLtMatmulPreferenceAttributes_t name, const T& value) {
  check(cublasLtMatmulPreferenceSetAttribute(preference.get(), name, &value, sizeof value));
}

Layout layout_of(const Matrix& matrix, DType dtype, std::int64_t batches) {
  Layout made =
      make<Layout>(cublasLtMatrixLayoutCreate, element_type(dtype), static_cast<std::uint64_t>(matrix.rows),
                   static_cast<std::uint64_t>(matrix.columns), matrix.leading);
  const auto count = static_cast<std::int32_t>(batches);
  check(
      cublasLtMatrixLayoutSetAttribute(made.get(), CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &count, sizeof count));
  check(cublasLtMatrixLayoutSetAttribute(made.get(), CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET,
                                         &matrix.batch_stride, sizeof matrix.batch_stride));
  return made;
}

/// The algorithm that cuBLASLt's heuristics put first; false when there is none. Split sums are added in f32
/// (f64) and in a fixed order.
bool choose_algorithm(Product& product, const Tensor& a, const Tensor& b, const Tensor& out) {
  const Preference preference = make<Preference>(cublasLtMatmulPreferenceCreate);
  set(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, kLargestWorkspace);
  set(preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
      static_cast<std::uint32_t>(CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE));
  set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, alignment_of(b));
  set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, alignment_of(a));
  set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, alignment_of(out));
  set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, alignment_of(out));
  cublasLtMatmulHeuristicResult_t result{};
  int count = 0;
  cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(
      handle(out.device().index), product.operation.get(), product.left.get(), product.right.get(),
      product.out.get(), product.out.get(), preference.get(), 1, &result, &count);
  if (status == CUBLAS_STATUS_SUCCESS) {
    status = count == 0 ? CUBLAS_STATUS_NOT_SUPPORTED : result.state;
  }
  if (status == CUBLAS_STATUS_NOT_SUPPORTED) {
    return false;
  }
  check(status);
  product.algorithm = result.algo;
  product.workspace_bytes = result.workspaceSize;
  return true;
}

Product make_product(const Tensor& a, const Tensor& b, const void* bias, const Tensor& out, bool tf32) {
  const bool is_f64 = out.dtype() == DType::f64;
  const cublasComputeType_t compute = is_f64 ? CUBLAS_COMPUTE_64F
                                      : tf32 ? CUBLAS_COMPUTE_32F_FAST_TF32
                                             : CUBLAS_COMPUTE_32F;
  const std::int64_t m = out.size(-2), n = out.size(-1), batches = out.dim() == 3 ? out.size(0) : 1;
  const Matrix left = matrix_of(b), right = matrix_of(a);
  const auto transposed = [](const Matrix& matrix) { return matrix.is_plain ? CUBLAS_OP_N : CUBLAS_OP_T; };
  Product product{
      .operation = make<Operation>(cublasLtMatmulDescCreate, compute, is_f64 ? CUDA_R_64F : CUDA_R_32F),
      .left = layout_of(left, b.dtype(), batches),
      .right = layout_of(right, a.dtype(), batches),
      .out = layout_of({true, n, m, n, m * n}, out.dtype(), batches)};
  set(product.operation, CUBLASLT_MATMUL_DESC_TRANSA, transposed(left));
  set(product.operation, CUBLASLT_MATMUL_DESC_TRANSB, transposed(right));
  if (bias != nullptr) {  // one number for each row of out^T; the choice depends on the address's alignment
    set(product.operation, CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_BIAS);
    set(product.operation, CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias);
    product.adds_bias = choose_algorithm(product, a, b, out);
    if (product.adds_bias) {
      return product;
    }
    set(product.operation, CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_DEFAULT);
  }
  check(choose_algorithm(product, a, b, out) ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED);
  return product;
}

ShapeKey key_of(const Tensor& a, const Tensor& b, bool biased, const Tensor& out, bool tf32) {
  const Matrix left = matrix_of(a), right = matrix_of(b);
  return {out.device().index,
          static_cast<std::int64_t>(a.dtype()),
          static_cast<std::int64_t>(b.dtype()),
          static_cast<std::int64_t>(out.dtype()),
          tf32,
          biased,
          out.dim() == 3 ? out.size(0) : 1,
          left.is_plain,
          left.rows,
          left.columns,
          left.leading,
          left.batch_stride,
          alignment_of(a),
          right.is_plain,
          right.rows,
          right.columns,
          right.leading,
          right.batch_stride,
          alignment_of(b),
          alignment_of(out)};
}

void run(const Tensor& a, const Tensor& b, const Tensor& bias, Tensor& out) {
  thread_local ShapeCache<Product> cache;
  const cudaStream_t stream = stream_of(out);
  const bool tf32 = a.dtype() == DType::f32 && gpu_arithmetic().tf32;
  Product& product = cache.find(key_of(a, b, bias.defined(), out, tf32),
                                [&] { return make_product(a, b, bias.raw(), out, tf32); });
  if (product.adds_bias) {
    set(product.operation, CUBLASLT_MATMUL_DESC_BIAS_POINTER, static_cast<const void*>(bias.raw()));
  }
  const Tensor workspace = empty({static_cast<std::int64_t>(product.workspace_bytes)},
                                 {.dtype = DType::u8, .device = out.device()});
  constexpr double kOne64 = 1, kZero64 = 0;
  constexpr float kOne32 = 1, kZero32 = 0;
  const bool is_f64 = out.dtype() == DType::f64;
  const void* const one = is_f64 ? static_cast<const void*>(&kOne64) : &kOne32;
  const void* const zero = is_f64 ? static_cast<const void*>(&kZero64) : &kZero32;
  check(cublasLtMatmul(handle(out.device().index), product.operation.get(), one, b.raw(), product.left.get(),
                       a.raw(), product.right.get(), zero, out.raw(), product.out.get(), out.raw(),
                       product.out.get(), &product.algorithm, workspace.raw(), product.workspace_bytes,
                       stream));
  if (bias.defined() && !product.adds_bias) {
    cuda::binary(BinaryOp::add, out, bias.expand(out.shape()), out);
  }
}

}  // namespace

void matmul(const Tensor& a, const Tensor& b, const Tensor& bias, Tensor& out) {
  assert(out.is_contiguous());
  check_types(a.dtype(), b.dtype(), out.dtype());
  if (out.numel() == 0) {
    return;
  }
  if (a.size(-1) == 0) {  // an empty sum
    cuda::fill(out, 0);
    if (bias.defined()) {
      cuda::copy(bias.expand(out.shape()), out);
    }
    return;
  }
  // cuBLASLt adds a bias of the result's type only, also to half factors, aligned as the one it chose an
  // algorithm for.
  Tensor added = bias.defined() ? bias.to(out.dtype()) : bias;
  if (added.defined() && alignment_of(added) < 16) {
    added = added.clone();
  }
  const auto ordered = [](const Tensor& x) { return is_blas_order(x) ? x : x.contiguous(); };
  try {
    run(ordered(a), ordered(b), added, out);
  } catch (const Failure& failure) {
    throw MachineError("matmul: {} {} x {}{} in {} on {}: cuBLASLt {} says {}", a.dtype(), a.shape(),
                       b.shape(), bias.defined() ? " + bias" : "", out.dtype(), out.device().to_string(),
                       cublasLtGetVersion(), cublasLtGetStatusString(failure.status));
  }
}

}  // namespace millrace::cuda
