#pragma once

#include <cstdlib>
#include <gmock/gmock.h>

#include "tensor/device.h"
#include "tests/cuda_libraries/fake_nccl.h"

namespace millrace {

[[maybe_unused]] inline const int kEightDevices = setenv("MILLRACE_EMULATED_GPUS", "8", 1);

inline Device gpu(int index) { return {Device::Kind::cuda, index}; }

/// Every test ends with nothing left over, and NCCL was never called wrongly.
class FakeNcclTest : public testing::Test {
 protected:
  void SetUp() override { fake_nccl::install(); }
  void TearDown() override {
    EXPECT_THAT(fake_nccl::misuses(), testing::IsEmpty());
    const auto [communicators, windows, blocks] = fake_nccl::held();
    EXPECT_EQ(communicators, 0);
    EXPECT_EQ(windows, 0);
    EXPECT_EQ(blocks, 0);
  }
};

}  // namespace millrace
