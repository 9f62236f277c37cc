#include "tensor/kernels/matmul.h"

#include <algorithm>
#include <cassert>
#include <optional>
#include <vector>

#include "tensor/cpu/onednn.h"
#include "tensor/kernels/elementwise.h"

namespace millrace::cpu {
namespace {

/// One matrix of a product as strides see it: `data[i * row + j * column]`.
template <typename T>
struct Matrix {
  const T* data;
  std::int64_t row;
  std::int64_t column;
};

template <typename T>
Matrix<T> matrix_of(const Tensor& x, std::int64_t batch) {
  const T* data = x.data<T>() + (x.dim() == 3 && x.size(0) > 1 ? batch * x.strides()[0] : 0);
  return {data, x.strides()[-2], x.strides()[-1]};
}

/// Whether BLAS can read the matrix: rows or columns without gaps inside.
bool is_blas_order(const Tensor& x) {
  const std::int64_t rows = x.size(-2), columns = x.size(-1), row = x.strides()[-2], column = x.strides()[-1];
  return ((column == 1 || columns == 1) && (row >= columns || rows == 1)) ||
         ((row == 1 || rows == 1) && (column >= rows || columns == 1));
}

void sgemm(Matrix<float> a, Matrix<float> b, std::int64_t m, std::int64_t n, std::int64_t k, float beta,
           float* out) {
  const auto order = [](Matrix<float> x, std::int64_t rows,
                        std::int64_t columns) -> std::pair<char, std::int64_t> {
    const bool plain = (x.column == 1 || columns == 1) && (x.row >= columns || rows == 1);
    // A single row or column has no meaningful stride, but the leading dimension must still be large enough.
    return plain ? std::pair('N', std::max(x.row, columns)) : std::pair('T', std::max(x.column, rows));
  };
  const auto [trans_a, lda] = order(a, m, k);
  const auto [trans_b, ldb] = order(b, k, n);
  dnnl_sgemm(trans_a, trans_b, m, n, k, 1.0f, a.data, lda, b.data, ldb, beta, out, n);
}

void matmul_f32(const Tensor& a, const Tensor& b, const Tensor& bias, Tensor& out) {
  onednn::engine();  // sets this thread's one OpenMP thread
  const std::int64_t m = out.size(-2), n = out.size(-1), k = a.size(-1), batches = out.numel() / (m * n);
  for (std::int64_t batch = 0; batch < batches; ++batch) {
    float* to = out.data<float>() + batch * m * n;
    if (bias.defined()) {
      for (std::int64_t i = 0; i < m; ++i) {
        std::copy_n(bias.data<float>(), n, to + i * n);
      }
    }
    sgemm(matrix_of<float>(a, batch), matrix_of<float>(b, batch), m, n, k, bias.defined() ? 1.0f : 0.0f, to);
  }
}

onednn::Call make_call(const Tensor& a, const Tensor& b, const Tensor& bias, const Tensor& out) {
  using dnnl::memory;
  const auto dims = [](const Shape& shape) { return memory::dims(shape.begin(), shape.end()); };
  const auto desc = [&](const Tensor& x) {
    return memory::desc(dims(x.shape()), onednn::data_type(x.dtype()), dims(x.strides()));
  };
  const auto make = [&](const dnnl::matmul::desc& wanted, const memory::desc* bias_desc) {
    const dnnl::matmul::primitive_desc made(wanted, onednn::attributes(), onednn::engine());
    const onednn::Call::Argument source{DNNL_ARG_SRC, onednn::unbound(made.src_desc())};
    const onednn::Call::Argument weights{DNNL_ARG_WEIGHTS, onednn::unbound(made.weights_desc())};
    const onednn::Call::Argument result{DNNL_ARG_DST, onednn::unbound(made.dst_desc())};
    if (bias_desc == nullptr) {
      return onednn::Call(dnnl::matmul(made), {source, weights, result}, made.scratchpad_desc());
    }
    return onednn::Call(dnnl::matmul(made),
                        {source, weights, result, {DNNL_ARG_BIAS, onednn::unbound(*bias_desc)}},
                        made.scratchpad_desc());
  };
  if (!bias.defined()) {
    return make({desc(a), desc(b), desc(out)}, nullptr);
  }
  memory::dims bias_dims(static_cast<std::size_t>(out.dim()), 1);
  bias_dims.back() = out.size(-1);
  memory::dims bias_strides(bias_dims.size(), out.size(-1));
  bias_strides.back() = 1;
  const memory::desc bias_desc(bias_dims, onednn::data_type(bias.dtype()), bias_strides);
  return make({desc(a), desc(b), bias_desc, desc(out)}, &bias_desc);
}

void matmul_bf16(const Tensor& a, const Tensor& b, const Tensor& bias, Tensor& out) {
  thread_local onednn::Cache<onednn::Call> cache;
  const bool batched = out.dim() == 3;
  const std::int64_t batches = batched ? out.size(0) : 1;
  const auto batch_stride = [&](const Tensor& x) { return batched ? x.strides()[0] : 0; };
  const onednn::Key key = {batched,
                           batches,
                           out.size(-2),
                           out.size(-1),
                           a.size(-1),
                           static_cast<std::int64_t>(out.dtype()),
                           bias.defined() ? 1 + static_cast<std::int64_t>(bias.dtype()) : 0,
                           batch_stride(a),
                           a.strides()[-2],
                           a.strides()[-1],
                           batch_stride(b),
                           b.strides()[-2],
                           b.strides()[-1]};
  onednn::Call& call = cache.find(key, "matmul", [&] { return make_call(a, b, bias, out); });
  if (bias.defined()) {
    call.run({a.raw(), b.raw(), out.raw(), bias.raw()});
  } else {
    call.run({a.raw(), b.raw(), out.raw()});
  }
}

/// f64 and integers: a row of the result at a time, the inner loop along contiguous rows of b.
template <typename T>
void matmul_plain(const Tensor& a, const Tensor& b, const Tensor& bias, Tensor& out) {
  const Tensor right = b.contiguous();
  const std::int64_t m = out.size(-2), n = out.size(-1), k = a.size(-1), batches = out.numel() / (m * n);
  T* to = out.data<T>();
  for (std::int64_t batch = 0; batch < batches; ++batch) {
    const Matrix<T> x = matrix_of<T>(a, batch), y = matrix_of<T>(right, batch);
    for (std::int64_t i = 0; i < m; ++i, to += n) {
      if (bias.defined()) {
        std::copy_n(bias.data<T>(), n, to);
      } else {
        std::fill_n(to, n, T{});
      }
      for (std::int64_t l = 0; l < k; ++l) {
        const T factor = x.data[i * x.row + l * x.column];
        const T* row = y.data + l * n;
#pragma omp simd
        for (std::int64_t j = 0; j < n; ++j) {
          to[j] = static_cast<T>(to[j] + factor * row[j]);
        }
      }
    }
  }
}

}  // namespace

void matmul(const Tensor& a, const Tensor& b, const Tensor& bias, Tensor& out) {
  assert(out.is_contiguous());
  if (out.numel() == 0) {
    return;
  }
  if (a.size(-1) == 0) {  // an empty sum
    cpu::fill(out, 0);
    if (bias.defined()) {
      cpu::copy(bias.expand(out.shape()), out);
    }
    return;
  }
  if (a.dtype() != b.dtype()) {
    throw InputError("matmul: got types {} and {}, expected one type (convert with to())", a.dtype(),
                     b.dtype());
  }
  const auto ordered = [](const Tensor& x) { return is_blas_order(x) ? x : x.contiguous(); };
  switch (a.dtype()) {
    case DType::f32:
      return matmul_f32(ordered(a), ordered(b), bias, out);
    case DType::bf16:
      return matmul_bf16(ordered(a), ordered(b), bias, out);
    case DType::f64:
      return matmul_plain<double>(a, b, bias, out);
    case DType::u8:
      return matmul_plain<std::uint8_t>(a, b, bias, out);
    case DType::i32:
      return matmul_plain<std::int32_t>(a, b, bias, out);
    case DType::i64:
      return matmul_plain<std::int64_t>(a, b, bias, out);
    case DType::f16:
      break;
  }
  throw InputError("matmul: type f16 is for storage on the CPU; convert with to() to f32 or bf16");
}

}  // namespace millrace::cpu
