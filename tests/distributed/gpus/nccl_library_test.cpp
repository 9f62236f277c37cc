// The NCCL that is installed: as far as it goes without a GPU, and on one.
#include "distributed/gpus/nccl_library.h"

#include <cstdlib>
#include <gmock/gmock.h>

#include "base/error.h"
#include "distributed/gpus/nccl_communicator.h"
#include "tests/distributed/gpus/on_gpus.h"
#ifdef MILLRACE_FAKE_NCCL
#include "tests/cuda_libraries/fake_nccl.h"
#endif

namespace millrace {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

/// In a process of its own, since the library is loaded once: what loading it says, on its standard error.
void load_from(const char* path) {
  setenv("MILLRACE_NCCL", path, 1);
  replace_nccl_library(nullptr);
  try {
    nccl_library();
    fmt::print(stderr, "loaded\n");
  } catch (const MachineError& error) {
    fmt::print(stderr, "{}\n", error.what());
  }
  std::_Exit(0);
}

TEST(NcclLibraryDeathTest, AMissingOneIsNamedWhenItIsAskedFor) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(load_from("/nowhere/libnccl.so.2"), testing::ExitedWithCode(0),
              AllOf(HasSubstr("nccl: the library was not found (/nowhere/libnccl.so.2: cannot open"),
                    HasSubstr("set MILLRACE_NCCL")));
}

TEST(NcclLibraryDeathTest, ALibraryThatIsNotNcclIsNamed) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(load_from("libc.so.6"), testing::ExitedWithCode(0),
              HasSubstr("nccl: got version unknown in libc.so.6, expected 2.18 or later"));
}

TEST(NcclLibrary, AVersionIsToldInThreeParts) {
  NcclLibrary library;
  library.GetVersion = [](int* version) {
    *version = 22803;
    return ncclSuccess;
  };
  EXPECT_EQ(version_of(library), "2.28.3");
}

TEST(NcclLibrary, TheInstalledOneMakesIds) {
  replace_nccl_library(nullptr);
  try {
    nccl_library();
  } catch (const MachineError& error) {
    GTEST_SKIP() << error.what();
  }
  EXPECT_THAT(version_of(nccl_library()), testing::MatchesRegex("2\\.[0-9]+\\.[0-9]+"));
  EXPECT_EQ(nccl_library().CommWindowRegister != nullptr, nccl_library().MemAlloc != nullptr);
  const NcclId first = make_nccl_id(), second = make_nccl_id();
  EXPECT_NE(first, second);
}

/// What can be asked of NCCL on a single GPU; on an emulated one a fake answers.
class NcclOneGpu : public testing::Test {
 protected:
  void SetUp() override {
    if (cuda_device_count() == 0) {
      GTEST_SKIP() << cuda_unavailable_reason();
    }
#ifdef MILLRACE_FAKE_NCCL
    fake_nccl::install();
#else
    replace_nccl_library(nullptr);
    try {
      nccl_library();
    } catch (const MachineError& error) {
      GTEST_SKIP() << error.what();
    }
#endif
  }
  static std::unique_ptr<Communicator> group_of_one(SumOrder sum_order) {
    return std::move(
        make_nccl_group(std::vector{kGpu}, {.timeout = std::chrono::seconds(30), .sum_order = sum_order})[0]);
  }
  static constexpr Device kGpu{Device::Kind::cuda, 0};
};

TEST_F(NcclOneGpu, EveryOperation) {
  for (const SumOrder sum_order : {SumOrder::tree, SumOrder::engine}) {
    const auto group = group_of_one(sum_order);
    Tensor buffer = group->allocate(1000, {.device = kGpu}), part = empty({1000}, {.device = kGpu}),
           joined = empty({1000}, {.device = kGpu});
    const Tensor values = make<float>(1, 0, 1000);
    buffer.copy_(values);
    group->all_reduce(buffer);
    group->broadcast(buffer, 0);
    group->reduce_scatter(buffer, part);
    group->all_gather(part, joined);
    group->barrier();
    const Tensor got = fetch(*group, joined);
    for (std::int64_t i = 0; i < 1000; ++i) {
      ASSERT_EQ(got.data<float>()[i], values.data<float>()[i]) << i;
    }
  }
}

TEST_F(NcclOneGpu, AnAbortIsSeen) {
  const auto group = group_of_one(SumOrder::tree);
  group->barrier();
  group->abort("out of paper");
  try {
    group->barrier();
    FAIL() << "the group was aborted";
  } catch (const CommunicatorError& error) {
    EXPECT_STREQ(error.what(), "barrier: rank 0 aborted: out of paper");
  }
}

}  // namespace
}  // namespace millrace
