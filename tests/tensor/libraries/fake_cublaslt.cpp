#include "fake_cublaslt.h"

#include <array>
#include <cstring>
#include <cublasLt.h>
#include <fmt/format.h>
#include <mutex>

#include "runtime_state.h"
#include "tensor/kernels.h"
#include "tensor/ops.h"

namespace millrace::fake_cublaslt {
namespace {

struct State {
  std::mutex mutex;
  bool refuses_biases = false;
  Counts counts;
  std::vector<std::string> overruns;
};
State& state() {
  static State state;
  return state;
}

struct Operation {
  cublasComputeType_t compute;
  cudaDataType_t scale;
  std::int32_t transposes_a = CUBLAS_OP_N, transposes_b = CUBLAS_OP_N;
  std::uint32_t epilogue = CUBLASLT_EPILOGUE_DEFAULT;
  const void* bias = nullptr;
};

/// Columns of `rows` neighbours, `leading` elements apart.
struct Layout {
  cudaDataType type;
  std::uint64_t rows, columns;
  std::int64_t leading;
  std::int32_t batches = 1;
  std::int64_t batch_stride = 0;

  DType dtype() const {
    return type == CUDA_R_32F    ? DType::f32
           : type == CUDA_R_64F  ? DType::f64
           : type == CUDA_R_16BF ? DType::bf16
                                 : DType::f16;
  }
  bool is_valid() const { return rows > 0 && columns > 0 && leading >= static_cast<std::int64_t>(rows); }
  std::size_t bytes() const {
    const auto last = static_cast<std::int64_t>(rows - 1) + static_cast<std::int64_t>(columns - 1) * leading +
                      (batches - 1) * batch_stride;
    return static_cast<std::size_t>(last + 1) * size_of(dtype());
  }
  Tensor at(const void* data, bool transposed) const {
    const auto r = static_cast<std::int64_t>(rows), c = static_cast<std::int64_t>(columns);
    const Tensor view = from_blob(const_cast<void*>(data), {batches, r, c}, {batch_stride, 1, leading},
                                  {.dtype = dtype()}, {});
    return transposed ? view.transpose(1, 2) : view;
  }
};

struct Preference {
  std::size_t workspace = 0;
};

template <typename Mine, typename Opaque>
Mine& mine(Opaque* opaque) {
  return *reinterpret_cast<Mine*>(opaque);
}

template <typename T>
cublasStatus_t take(T& into, const void* from, std::size_t bytes) {
  if (bytes != sizeof(T)) {
    return CUBLAS_STATUS_INVALID_VALUE;
  }
  std::memcpy(&into, from, bytes);
  return CUBLAS_STATUS_SUCCESS;
}

/// "Supported types" of cublasLtMatmul, as far as we have them. A bias is of D's type in all of them.
bool is_supported(const Operation& op, cudaDataType a, cudaDataType b, cudaDataType d) {
  if (a != b) {
    return false;
  }
  if (op.compute == CUBLAS_COMPUTE_64F) {
    return op.scale == CUDA_R_64F && a == CUDA_R_64F && d == CUDA_R_64F;
  }
  const bool is_half = a == CUDA_R_16BF || a == CUDA_R_16F;
  const bool plain = op.compute == CUBLAS_COMPUTE_32F &&
                     ((is_half && (d == a || d == CUDA_R_32F)) || (a == CUDA_R_32F && d == CUDA_R_32F));
  const bool fast = op.compute == CUBLAS_COMPUTE_32F_FAST_TF32 && a == CUDA_R_32F && d == CUDA_R_32F;
  return op.scale == CUDA_R_32F && (plain || fast);
}

bool fits(const Operation& op, const Layout& a, const Layout& b, const Layout& d) {
  const auto m = op.transposes_a == CUBLAS_OP_N ? a.rows : a.columns;
  const auto k = op.transposes_a == CUBLAS_OP_N ? a.columns : a.rows;
  const auto n = op.transposes_b == CUBLAS_OP_N ? b.columns : b.rows;
  const auto same_k = op.transposes_b == CUBLAS_OP_N ? b.rows : b.columns;
  return a.is_valid() && b.is_valid() && d.is_valid() && k == same_k && m == d.rows && n == d.columns &&
         a.batches == d.batches && b.batches == d.batches;
}

/// Whether the range lies in one allocation.
bool holds(const char* what, const void* data, std::size_t bytes) {
  const int device = emulator::device_of(data);
  if (device >= 0 && emulator::state().devices[static_cast<std::size_t>(device)]->arena.holds(data, bytes)) {
    return true;
  }
  const std::lock_guard lock(state().mutex);
  state().overruns.push_back(fmt::format("{} of {} bytes", what, bytes));
  return false;
}

}  // namespace

void refuse_biases(bool refuse) {
  const std::lock_guard lock(state().mutex);
  state().refuses_biases = refuse;
}
Counts counts() {
  const std::lock_guard lock(state().mutex);
  return state().counts;
}
std::vector<std::string> overruns() {
  const std::lock_guard lock(state().mutex);
  return state().overruns;
}

}  // namespace millrace::fake_cublaslt

using namespace millrace::fake_cublaslt;

extern "C" {

size_t cublasLtGetVersion() { return 130000; }
const char* cublasLtGetStatusString(cublasStatus_t status) {
  return status == CUBLAS_STATUS_NOT_SUPPORTED ? "not supported" : "an error of the fake";
}
cublasStatus_t cublasLtCreate(cublasLtHandle_t* handle) {
  *handle = reinterpret_cast<cublasLtHandle_t>(new int());
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle) {
  delete reinterpret_cast<int*>(handle);
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t* made, cublasComputeType_t compute,
                                        cudaDataType_t scale) {
  *made = reinterpret_cast<cublasLtMatmulDesc_t>(new Operation{compute, scale});
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t made) {
  delete &mine<Operation>(made);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t made, cublasLtMatmulDescAttributes_t name,
                                              const void* value, size_t bytes) {
  auto& operation = mine<Operation>(made);
  switch (name) {
    case CUBLASLT_MATMUL_DESC_TRANSA:
      return take(operation.transposes_a, value, bytes);
    case CUBLASLT_MATMUL_DESC_TRANSB:
      return take(operation.transposes_b, value, bytes);
    case CUBLASLT_MATMUL_DESC_EPILOGUE:
      return take(operation.epilogue, value, bytes);
    case CUBLASLT_MATMUL_DESC_BIAS_POINTER:
      return take(operation.bias, value, bytes);
    default:
      return CUBLAS_STATUS_INVALID_VALUE;
  }
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t* made, cudaDataType type, uint64_t rows,
                                          uint64_t columns, int64_t leading) {
  *made = reinterpret_cast<cublasLtMatrixLayout_t>(new Layout{type, rows, columns, leading});
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t made) {
  delete &mine<Layout>(made);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutSetAttribute(cublasLtMatrixLayout_t made,
                                                cublasLtMatrixLayoutAttribute_t name, const void* value,
                                                size_t bytes) {
  auto& layout = mine<Layout>(made);
  switch (name) {
    case CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT:
      return take(layout.batches, value, bytes);
    case CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET:
      return take(layout.batch_stride, value, bytes);
    default:
      return CUBLAS_STATUS_INVALID_VALUE;
  }
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t* made) {
  *made = reinterpret_cast<cublasLtMatmulPreference_t>(new Preference());
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t made) {
  delete &mine<Preference>(made);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t made,
                                                    cublasLtMatmulPreferenceAttributes_t name,
                                                    const void* value, size_t bytes) {
  std::uint32_t number = 0;
  return name == CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES
             ? take(mine<Preference>(made).workspace, value, bytes)
             : take(number, value, bytes);
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t operation,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t, int asked,
                                              cublasLtMatmulHeuristicResult_t* results, int* count) {
  const auto& op = mine<Operation>(operation);
  const Layout &left = mine<Layout>(a), &right = mine<Layout>(b), &out = mine<Layout>(d);
  const std::lock_guard lock(state().mutex);
  ++state().counts.heuristics;
  *count = 0;
  if (!fits(op, left, right, out) || mine<Layout>(c).type != out.type || asked < 1) {
    return CUBLAS_STATUS_INVALID_VALUE;
  }
  const bool biased = op.epilogue == CUBLASLT_EPILOGUE_BIAS;
  if (!is_supported(op, left.type, right.type, out.type) || (biased && state().refuses_biases)) {
    return CUBLAS_STATUS_NOT_SUPPORTED;
  }
  *count = 1;
  results[0] = {};
  results[0].workspaceSize = 64;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t, cublasLtMatmulDesc_t operation, const void*, const void* a,
                              cublasLtMatrixLayout_t a_layout, const void* b, cublasLtMatrixLayout_t b_layout,
                              const void*, const void*, cublasLtMatrixLayout_t, void* d,
                              cublasLtMatrixLayout_t d_layout, const cublasLtMatmulAlgo_t*, void* workspace,
                              size_t workspace_bytes, cudaStream_t stream) {
  const auto op = mine<Operation>(operation);
  const auto left = mine<Layout>(a_layout), right = mine<Layout>(b_layout), out = mine<Layout>(d_layout);
  const bool biased = op.epilogue == CUBLASLT_EPILOGUE_BIAS;
  const bool inside = holds("A", a, left.bytes()) && holds("B", b, right.bytes()) &&
                      holds("D", d, out.bytes()) && holds("workspace", workspace, workspace_bytes) &&
                      (!biased || holds("bias", op.bias, out.rows * millrace::size_of(out.dtype())));
  if (!inside) {
    return CUBLAS_STATUS_INVALID_VALUE;
  }
  {
    const std::lock_guard lock(state().mutex);
    ++state().counts.products;
  }
  stream->push([=] {
    using millrace::DType, millrace::Tensor;
    const Tensor x = left.at(a, op.transposes_a == CUBLAS_OP_T).to(DType::f64);
    const Tensor y = right.at(b, op.transposes_b == CUBLAS_OP_T).to(DType::f64);
    Tensor product = millrace::matmul(x, y), to = out.at(d, false);
    if (biased) {
      const auto rows = static_cast<std::int64_t>(out.rows);
      const Tensor bias = millrace::from_blob(const_cast<void*>(op.bias), {1, rows, 1}, {rows, 1, 1},
                                              {.dtype = out.dtype()}, {});
      product = product + bias.to(DType::f64);
    }
    to.copy_(product);
  });
  return CUBLAS_STATUS_SUCCESS;
}

}  // extern "C"
