#pragma once

#include <array>
#include <cublasLt.h>
#include <span>
#include <string>

/// What cuBLASLt's documentation says that it takes, as data, and the objects that are held against it. For
/// which of this the real library has an algorithm, it alone says.
namespace millrace::fake_cublaslt {

/// "Supported data types when A, B, C, and D are regular column- or row-major matrices" of cublasLtMatmul,
/// without integers, complex numbers and numbers of 8 bits, which the fake does not have.
struct TypeRow {
  cublasComputeType_t compute;
  cudaDataType scale, factors, result, bias;
};
inline constexpr TypeRow kTypes[] = {
    {CUBLAS_COMPUTE_16F, CUDA_R_16F, CUDA_R_16F, CUDA_R_16F, CUDA_R_16F},
    {CUBLAS_COMPUTE_16F_PEDANTIC, CUDA_R_16F, CUDA_R_16F, CUDA_R_16F, CUDA_R_16F},
    {CUBLAS_COMPUTE_32F, CUDA_R_32F, CUDA_R_16BF, CUDA_R_16BF, CUDA_R_16BF},
    {CUBLAS_COMPUTE_32F, CUDA_R_32F, CUDA_R_16F, CUDA_R_16F, CUDA_R_16F},
    {CUBLAS_COMPUTE_32F, CUDA_R_32F, CUDA_R_16BF, CUDA_R_32F, CUDA_R_32F},
    {CUBLAS_COMPUTE_32F, CUDA_R_32F, CUDA_R_16F, CUDA_R_32F, CUDA_R_32F},
    {CUBLAS_COMPUTE_32F, CUDA_R_32F, CUDA_R_32F, CUDA_R_32F, CUDA_R_32F},
    {CUBLAS_COMPUTE_32F_PEDANTIC, CUDA_R_32F, CUDA_R_16BF, CUDA_R_16BF, CUDA_R_16BF},
    {CUBLAS_COMPUTE_32F_PEDANTIC, CUDA_R_32F, CUDA_R_16F, CUDA_R_16F, CUDA_R_16F},
    {CUBLAS_COMPUTE_32F_PEDANTIC, CUDA_R_32F, CUDA_R_16BF, CUDA_R_32F, CUDA_R_32F},
    {CUBLAS_COMPUTE_32F_PEDANTIC, CUDA_R_32F, CUDA_R_16F, CUDA_R_32F, CUDA_R_32F},
    {CUBLAS_COMPUTE_32F_PEDANTIC, CUDA_R_32F, CUDA_R_32F, CUDA_R_32F, CUDA_R_32F},
    {CUBLAS_COMPUTE_32F_FAST_16F, CUDA_R_32F, CUDA_R_32F, CUDA_R_32F, CUDA_R_32F},
    {CUBLAS_COMPUTE_32F_FAST_16BF, CUDA_R_32F, CUDA_R_32F, CUDA_R_32F, CUDA_R_32F},
    {CUBLAS_COMPUTE_32F_FAST_TF32, CUDA_R_32F, CUDA_R_32F, CUDA_R_32F, CUDA_R_32F},
    {CUBLAS_COMPUTE_64F, CUDA_R_64F, CUDA_R_64F, CUDA_R_64F, CUDA_R_64F},
    {CUBLAS_COMPUTE_64F_PEDANTIC, CUDA_R_64F, CUDA_R_64F, CUDA_R_64F, CUDA_R_64F},
};

/// Epilogues that the fake computes. The real one has more; our code is to ask for none of them.
inline constexpr cublasLtEpilogue_t kEpilogues[] = {CUBLASLT_EPILOGUE_DEFAULT, CUBLASLT_EPILOGUE_RELU,
                                                    CUBLASLT_EPILOGUE_BIAS, CUBLASLT_EPILOGUE_RELU_BIAS};

/// "The workspace pointer must be aligned to at least a multiple of 256 bytes."
inline constexpr std::size_t kWorkspaceAlignment = 256;
/// What preferences say where nobody set them; no kernel wants more than the second.
inline constexpr std::uint32_t kDefaultAlignment = 256, kLargestAlignment = 16;

struct Operation {
  std::int32_t compute, scale;
  std::int32_t pointer_mode = CUBLASLT_POINTER_MODE_HOST;
  std::int32_t transposes_a = CUBLAS_OP_N, transposes_b = CUBLAS_OP_N, transposes_c = CUBLAS_OP_N;
  std::uint32_t epilogue = CUBLASLT_EPILOGUE_DEFAULT;
  const void* bias = nullptr;
  std::int32_t bias_type = -1;  // the result's

  bool adds_bias() const { return (epilogue & CUBLASLT_EPILOGUE_BIAS) != 0; }
  cudaDataType bias_data_type(cudaDataType result) const {
    return bias_type == -1 ? result : static_cast<cudaDataType>(bias_type);
  }
};

/// Columns (or rows) of neighbours, `leading` elements apart.
struct Layout {
  std::uint32_t type;
  std::uint64_t rows, columns;
  std::int64_t leading;
  std::int32_t order = CUBLASLT_ORDER_COL;
  std::int32_t batches = 1;
  std::int64_t batch_stride = 0;

  cudaDataType data_type() const { return static_cast<cudaDataType>(type); }
  std::int64_t place(std::int64_t row, std::int64_t column) const {
    return order == CUBLASLT_ORDER_COL ? row + column * leading : row * leading + column;
  }
  std::int64_t elements() const;  ///< From the first to the last of one matrix.
  std::size_t bytes() const;      ///< From the first to the last of all.
  bool operator==(const Layout&) const = default;
};

struct Preference {
  std::uint64_t workspace = 0;
  std::uint32_t reduction_schemes = CUBLASLT_REDUCTION_SCHEME_MASK;
  std::array<std::uint32_t, 4> alignments = {kDefaultAlignment, kDefaultAlignment, kDefaultAlignment,
                                             kDefaultAlignment};  // A, B, C, D
};

/// The product of which all is checked but addresses.
struct Problem {
  Operation operation;
  Layout a, b, c, d;
  std::int64_t m() const { return static_cast<std::int64_t>(d.rows); }
  std::int64_t n() const { return static_cast<std::int64_t>(d.columns); }
  std::int64_t k() const;
  /// What an algorithm was chosen for, in words.
  std::string text() const;
};
/// INVALID_VALUE for what contradicts itself, NOT_SUPPORTED for what stands in no table.
cublasStatus_t status_of(const Problem& problem);

/// What a product needs of memory; `at` are A, B, C and D.
struct Operands {
  std::array<const void*, 3> from;
  void* to;
  double alpha, beta;
};
/// Computes the product, on its stream. Sums of two halves are rounded to the result in between where the
/// algorithm adds them there.
void multiply(const Problem& problem, const Operands& operands, bool splits_in_result);

}  // namespace millrace::fake_cublaslt
