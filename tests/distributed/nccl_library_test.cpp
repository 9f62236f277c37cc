// The NCCL that is installed, as far as it goes without a GPU.
#include "distributed/nccl_library.h"

#include <cstdlib>
#include <gmock/gmock.h>

#include "distributed/nccl_communicator.h"
#include "tensor/error.h"

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

}  // namespace
}  // namespace millrace
