#include "dataio/glob.h"

#include "tests/base/temporary_folder.h"

namespace millrace {
namespace {

std::vector<std::string> names(const std::string& pattern) {
  std::vector<std::string> result;
  for (const std::filesystem::path& path : files_named(pattern)) {
    result.push_back(path.filename().string());
  }
  return result;
}

TEST(Glob, FilesInTheOrderOfTheirNames) {
  test::TemporaryFolder folder;
  for (const char* name : {"b-10", "b-9", "B-1", "a", "b-[1]", "b-1", "b-1.mlx"}) {
    folder.write(name, "x");
  }
  std::filesystem::create_directory(folder.path("b-folder"));
  EXPECT_THAT(names(folder.path("b-*")), testing::ElementsAre("b-1", "b-10", "b-9", "b-[1]"));
  EXPECT_THAT(names(folder.path("b-{9,1}")), testing::ElementsAre("b-1", "b-9"));
  EXPECT_THAT(names(folder.path("{a,{B,b}-1,b-{9,{10..10}}}")),
              testing::ElementsAre("B-1", "a", "b-1", "b-10", "b-9"));
  EXPECT_THAT(test::input_error([&] { files_named(folder.path("{a,nope}")); }), testing::HasSubstr("nope"));
  EXPECT_THAT(names(folder.path("?")), testing::ElementsAre("a"));
  EXPECT_THAT(names(folder.path("b-[1]")), testing::ElementsAre("b-[1]")) << "the very name comes first";
  EXPECT_THAT(test::input_error([&] { files_named(folder.path("c*")); }), testing::HasSubstr("c*"));
  EXPECT_THAT(test::input_error([&] { files_named(folder.path("b-folder")); }), testing::HasSubstr("folder"));
}

TEST(Glob, AFileOfSeveralSpellingsComesOnce) {
  test::TemporaryFolder folder;
  folder.write("a", "x");
  folder.write("c", "x");
  std::filesystem::create_symlink("a", folder.path("b"));
  EXPECT_THAT(names(folder.path("{a,./a,b,c}")), testing::ElementsAre("a", "c"));
}

TEST(Glob, RangesNameEachOfTheirFiles) {
  test::TemporaryFolder folder;
  for (const char* name : {"p-08-a", "p-09-a", "p-10-a", "p-10-b", "p-{1..2}"}) {
    folder.write(name, "x");
  }
  EXPECT_THAT(names(folder.path("p-{08..10}-a")), testing::ElementsAre("p-08-a", "p-09-a", "p-10-a"));
  EXPECT_THAT(names(folder.path("p-{09..10}-*")), testing::ElementsAre("p-09-a", "p-10-a", "p-10-b"));
  EXPECT_THAT(names(folder.path("p-*{0..1}*-a")), testing::ElementsAre("p-08-a", "p-09-a", "p-10-a"));
  EXPECT_THAT(names(folder.path("p-{1..2}")), testing::ElementsAre("p-{1..2}"))
      << "the very name comes first";
  EXPECT_THAT(test::input_error([&] { files_named(folder.path("p-{08..11}-a")); }),
              testing::HasSubstr("p-11-a"));
  EXPECT_THAT(test::input_error([&] { files_named(folder.path("p-{9..8}-a")); }),
              testing::HasSubstr("{9..8}"));
  EXPECT_THAT(test::input_error([&] { files_named(folder.path("p-{0..999999999}")); }),
              testing::HasSubstr("more than"));
}

}  // namespace
}  // namespace millrace
