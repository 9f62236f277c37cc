#include "base/team.h"

#include <chrono>
#include <gtest/gtest.h>
#include <set>
#include <sys/resource.h>

#include "base/error.h"

namespace millrace {
namespace {

TEST(Team, RunsEveryMemberOncePerJob) {
  for (int size : {1, 2, 5}) {
    Team team(size);
    EXPECT_EQ(team.size(), size);
    std::vector<int> runs(static_cast<std::size_t>(size));  // each written by its member only
    for (int job = 1; job <= 100; ++job) {
      team.run([&](int member) { ++runs[static_cast<std::size_t>(member)]; });
      for (int count : runs) {
        ASSERT_EQ(count, job);
      }
      // Now and then the others fall asleep in between.
      if (job % 50 == 0) {
        std::this_thread::sleep_for(std::chrono::milliseconds(2));
      }
    }
  }
}

TEST(Team, MembersKeepTheirThreadsAndTheCallerIsOne) {
  Team team(3);
  std::vector<std::thread::id> first(3), second(3);
  team.run([&](int member) { first[static_cast<std::size_t>(member)] = std::this_thread::get_id(); });
  team.run([&](int member) { second[static_cast<std::size_t>(member)] = std::this_thread::get_id(); });
  EXPECT_EQ(first, second);
  EXPECT_EQ(first[0], std::this_thread::get_id());
  EXPECT_EQ(std::set(first.begin(), first.end()).size(), 3u);
}

TEST(Team, EndsWithoutEverRunning) { const Team team(4); }

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)  // they map terabytes
TEST(TeamDeathTest, SaysWhenTheMachineGivesNoMoreThreads) {
  const auto start_too_many = [] {
    const rlimit limit{.rlim_cur = std::size_t{1} << 30, .rlim_max = std::size_t{1} << 30};
    setrlimit(RLIMIT_AS, &limit);
    try {
      const Team team(1000);  // stacks of 8 MB
    } catch (const MachineError&) {
      std::_Exit(7);
    }
  };
  EXPECT_EXIT(start_too_many(), testing::ExitedWithCode(7), "");
}
#endif

}  // namespace
}  // namespace millrace
