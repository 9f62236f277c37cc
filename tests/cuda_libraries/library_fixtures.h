#pragma once

#include "fake_cublaslt.h"
#include "fake_cudnn.h"
#include "memory.h"
#include "tensor/gpu/arithmetic.h"
#include "tests/tensor/gpu/on_cuda.h"

namespace millrace::test {

class CublasLt : public CudaTest {
 protected:
  void TearDown() override {
    set_gpu_arithmetic({});
    fake_cublaslt::refuse_biases(false);
    fakes::refusing_seed() = 0;
  }
};

class CudnnExecution : public CudaTest {
 protected:
  void TearDown() override {
    set_gpu_arithmetic({});
    fake_cudnn::on_run({});
    fake_cudnn::name_all_engines(false);
    fakes::refusing_seed() = 0;
  }
};

}  // namespace millrace::test
