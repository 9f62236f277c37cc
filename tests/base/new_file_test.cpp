#include "base/new_file.h"

#include <csignal>
#include <fcntl.h>
#include <fstream>
#include <gtest/gtest.h>
#include <unistd.h>

namespace millrace {
namespace {

namespace fs = std::filesystem;

class NewFileTest : public testing::Test {
 protected:
  NewFileTest() { fs::create_directories(folder_); }
  ~NewFileTest() override { fs::remove_all(folder_); }

  std::string content() const {
    std::ifstream file(place_);
    return {std::istreambuf_iterator<char>(file), {}};
  }
  auto files() const { return std::distance(fs::directory_iterator(folder_), {}); }

  fs::path folder_ = fs::path(testing::TempDir()) / ("new_file_" + std::to_string(::getpid()));
  fs::path place_ = folder_ / "place";
};

TEST_F(NewFileTest, TakesItsPlaceWhenItIsWhole) {
  for (const std::string text : {"first", "second"}) {
    {
      NewFile dropped(place_);
      dropped.write("half", 4);
    }
    NewFile file(place_);
    file.write(text.data(), text.size());
    EXPECT_NE(content(), text);
    file.commit();
    EXPECT_EQ(content(), text);
    EXPECT_EQ(files(), 1);
  }
}

TEST_F(NewFileTest, LeavesNothingWhenTheProcessIsKilled) {
  const int unnamed = ::open(folder_.c_str(), O_WRONLY | O_TMPFILE, 0600);
  if (unnamed < 0) {
    GTEST_SKIP() << "this file system has no files without a name";
  }
  ::close(unnamed);
  const auto killed = [this] {
    NewFile file(place_);
    file.write("half", 4);
    std::raise(SIGKILL);
  };
  EXPECT_EXIT(killed(), testing::KilledBySignal(SIGKILL), "");
  EXPECT_EQ(files(), 0);
}

}  // namespace
}  // namespace millrace
