#include <cublasLt.h>
#include <cudnn.h>
#include <fmt/format.h>

#include "tensor/cuda/runtime/runtime.h"

namespace millrace::cuda {

std::string describe_libraries() {
  int driver = 0, runtime = 0;
  cudaDriverGetVersion(&driver);
  cudaRuntimeGetVersion(&runtime);
  const std::size_t dnn = cudnnGetVersion(), blas = cublasLtGetVersion();
  return fmt::format(
      "CUDA {}.{}, {}, cuDNN {}.{}.{}, cuBLASLt {}.{}.{}", runtime / 1000, runtime % 1000 / 10,
      driver == 0 ? "no driver" : fmt::format("driver for CUDA {}.{}", driver / 1000, driver % 1000 / 10),
      dnn / 10000, dnn / 100 % 100, dnn % 100, blas / 10000, blas / 100 % 100, blas % 100);
}

}  // namespace millrace::cuda
