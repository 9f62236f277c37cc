#include "tensor/gpu/engine_choices.h"

#include <algorithm>
#include <filesystem>
#include <fmt/format.h>
#include <fstream>
#include <gtest/gtest.h>
#include <iterator>
#include <sys/wait.h>
#include <unistd.h>
#include <vector>

#include "base/error.h"

namespace millrace {
namespace {

const EngineChoice kFirst{.engine = 62, .knobs = {{23, 5}, {24, -1}}};
const EngineChoice kSecond{.engine = 0, .knobs = {}};

class EngineChoicesTest : public testing::Test {
 protected:
  EngineChoicesTest()
      : folder_(std::filesystem::temp_directory_path() / fmt::format("engine_choices_{}", ::getpid())),
        file_(folder_ / "below" / "engines") {}
  ~EngineChoicesTest() override { std::filesystem::remove_all(folder_); }

  std::string content() const {
    std::ifstream stream(file_, std::ios::binary);
    return {std::istreambuf_iterator<char>(stream), {}};
  }
  void replace(const std::string& content) const {
    std::filesystem::create_directories(file_.parent_path());
    std::ofstream(file_, std::ios::binary) << content;
  }

  const std::filesystem::path folder_;
  const std::filesystem::path file_;
};

TEST_F(EngineChoicesTest, are_found_by_key_and_kept_for_the_next_process) {
  EngineChoices choices(file_);
  EXPECT_EQ(choices.find("forward bf16"), std::nullopt);
  choices.add("forward bf16", kFirst);
  choices.add("forward f32", kSecond);
  choices.add("forward f32", kFirst);
  EXPECT_EQ(choices.find("forward f32"), kFirst);
  const EngineChoices next(file_);
  EXPECT_EQ(next.find("forward bf16"), kFirst);
  EXPECT_EQ(next.find("forward f32"), kFirst);
  EXPECT_EQ(next.bytes(), choices.bytes());
}

TEST_F(EngineChoicesTest, the_first_of_several_win) {
  std::vector<std::string> ranks;
  for (int r = 0; r < 3; ++r) {
    EngineChoices of_rank("");
    of_rank.add("known from " + std::to_string(r), {.engine = r, .knobs = {}});
    if (r > 0) {
      of_rank.add("not known to 0", {.engine = r, .knobs = {}});
    }
    of_rank.add("known to all", {.engine = r, .knobs = {}});
    ranks.push_back(of_rank.bytes());
  }
  for (int r = 0; r < 3; ++r) {
    EngineChoices choices("");
    choices.import(ranks[static_cast<std::size_t>(r)]);
    choices.import(ranks);
    EXPECT_EQ(choices.size(), 5u);
    EXPECT_EQ(choices.find("known to all")->engine, 0);
    EXPECT_EQ(choices.find("not known to 0")->engine, 1);
    EXPECT_EQ(choices.find("known from 2")->engine, 2);
  }
}

TEST_F(EngineChoicesTest, imported_ones_win_and_are_counted) {
  EngineChoices rank0({}), rank1({});
  rank0.add("both", kFirst);
  rank1.add("both", kSecond);
  rank1.add("mine", kSecond);
  EXPECT_EQ(rank1.generation(), 0u);
  rank1.import(rank0.bytes());
  EXPECT_EQ(rank1.generation(), 1u);
  EXPECT_EQ(rank1.find("both"), kFirst);
  EXPECT_EQ(rank1.find("mine"), kSecond);
}

TEST_F(EngineChoicesTest, damaged_bytes_change_nothing) {
  EngineChoices choices({});
  choices.add("key", kFirst);
  const std::string whole = choices.bytes();
  for (std::size_t i = 0; i < whole.size(); ++i) {
    std::string flipped = whole;
    flipped[i] = static_cast<char>(flipped[i] ^ 1);
    EXPECT_THROW(choices.import(flipped), InputError) << i;
    EXPECT_THROW(choices.import(whole.substr(0, i)), InputError) << i;
  }
  EXPECT_EQ(choices.bytes(), whole);
  EXPECT_EQ(choices.generation(), 0u);
}

TEST_F(EngineChoicesTest, a_damaged_file_is_warned_about_once_and_replaced) {
  replace("not ours");
  testing::internal::CaptureStderr();
  EngineChoices choices(file_);
  choices.add("key", kFirst);
  const std::string warning = testing::internal::GetCapturedStderr();
  EXPECT_EQ(warning,
            fmt::format("millrace: warning: {} is ignored and will be replaced: engine choices: got 8 bytes "
                        "that do not begin with \"millrace engines 1\"\n",
                        file_.string()));
  EXPECT_EQ(content(), choices.bytes());
}

TEST_F(EngineChoicesTest, what_cannot_be_written_is_warned_about_once) {
  std::filesystem::create_directories(folder_);
  std::ofstream(folder_ / "below") << "a file, where a folder is needed";
  testing::internal::CaptureStderr();
  EngineChoices choices(file_);
  choices.add("key", kFirst);
  choices.add("other", kFirst);
  const std::string warning = testing::internal::GetCapturedStderr();
  EXPECT_NE(warning.find("not kept for the next run"), std::string::npos) << warning;
  EXPECT_EQ(std::count(warning.begin(), warning.end(), '\n'), 1) << warning;
  EXPECT_EQ(choices.find("other"), kFirst);
}

TEST_F(EngineChoicesTest, processes_at_once_leave_a_whole_file) {
  std::vector<pid_t> writers;
  for (int writer = 0; writer < 3; ++writer) {
    const pid_t child = ::fork();
    if (child == 0) {
      EngineChoices choices(file_);
      for (int i = 0; i < 20; ++i) {
        choices.add(fmt::format("{} {}", writer, i), {.engine = i, .knobs = {}});
      }
      ::_exit(0);
    }
    writers.push_back(child);
  }
  for (const pid_t writer : writers) {
    int status = 0;
    ASSERT_EQ(::waitpid(writer, &status, 0), writer);
    EXPECT_EQ(status, 0);
  }
  testing::internal::CaptureStderr();
  const EngineChoices choices(file_);
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
  EXPECT_NE(choices.bytes().find(" 19\t19\n"), std::string::npos);
}

}  // namespace
}  // namespace millrace
