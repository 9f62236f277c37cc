#include "base/cores.h"

#include <cmath>
#include <filesystem>
#include <fstream>
#include <gtest/gtest.h>
#include <string>

namespace millrace {
namespace {

namespace fs = std::filesystem;

/// A made-up /proc/self/cgroup and /sys/fs/cgroup.
class CgroupTest : public ::testing::Test {
 protected:
  void SetUp() override {
    root_ = fs::path(::testing::TempDir()) / ::testing::UnitTest::GetInstance()->current_test_info()->name();
    fs::remove_all(root_);
  }
  void TearDown() override { fs::remove_all(root_); }

  void write(const fs::path& path, const std::string& text) const {
    fs::create_directories((root_ / path).parent_path());
    std::ofstream(root_ / path) << text << "\n";
  }
  double limit() const { return cgroup_core_limit(root_ / "membership", root_ / "mount"); }

  fs::path root_;
};

TEST_F(CgroupTest, NoFilesMeanNoLimit) { EXPECT_TRUE(std::isinf(limit())); }

TEST_F(CgroupTest, Version2TakesTheLowestLevel) {
  write("membership", "0::/outer/inner");
  write("mount/cpu.max", "max 100000");
  write("mount/outer/cpu.max", "250000 100000");
  write("mount/outer/inner/cpu.max", "400000 100000");
  EXPECT_DOUBLE_EQ(limit(), 2.5);
}

TEST_F(CgroupTest, Version2WithoutALimit) {
  write("membership", "0::/group");
  write("mount/group/cpu.max", "max 100000");
  EXPECT_TRUE(std::isinf(limit()));
}

TEST_F(CgroupTest, Version1ReadsTheCpuController) {
  write("membership", "7:cpuset:/other\n4:cpu,cpuacct:/docker/abc");
  write("mount/cpu,cpuacct/docker/abc/cpu.cfs_quota_us", "150000");
  write("mount/cpu,cpuacct/docker/abc/cpu.cfs_period_us", "100000");
  EXPECT_DOUBLE_EQ(limit(), 1.5);
}

TEST_F(CgroupTest, Version1InAContainerSeesItsOwnRoot) {
  write("membership", "4:cpu:/docker/abc");
  write("mount/cpu/cpu.cfs_quota_us", "300000");
  write("mount/cpu/cpu.cfs_period_us", "100000");
  EXPECT_DOUBLE_EQ(limit(), 3);
}

TEST_F(CgroupTest, Version1WithoutALimit) {
  write("membership", "4:cpu:/");
  write("mount/cpu/cpu.cfs_quota_us", "-1");
  write("mount/cpu/cpu.cfs_period_us", "100000");
  EXPECT_TRUE(std::isinf(limit()));
}

TEST(Cores, AtLeastOneIsAvailable) { EXPECT_GE(available_cores(), 1); }

}  // namespace
}  // namespace millrace
