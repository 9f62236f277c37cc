#include "sample_files.h"
#include "tests/base/temporary_folder.h"
#include "tests/dataio/formats/sample_files.h"

namespace millrace {
namespace {

using test::input_error;
using test::kJpeg;
using test::kPng;
using test::open_error;
using test::read_error;
using test::TemporaryFolder;
using test::text;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

TEST(ImageFolder, ClassesAndFilesComeInTheOrderOfTheirNames) {
  TemporaryFolder folder;
  folder.write("dog/2.jpg", kJpeg + "d2");
  folder.write("dog/10.JPEG", kJpeg + "d10");
  folder.write("cat/b.png", kPng + "cb");
  folder.write("cat/a.png", kJpeg + "ca");  // a JPEG in truth
  folder.write("cat/image", kPng + "ci");   // an image without an ending
  folder.write("cat/notes.txt", "no image");
  folder.write("cat/.hidden.jpg", kJpeg);
  folder.write(".git/x.jpg", kJpeg);
  folder.write("README.md", "about");
  const auto dataset = open_dataset("images:" + folder.path());
  EXPECT_THAT(dataset->info().classes, ElementsAre("cat", "dog"));
  EXPECT_EQ(dataset->info().channels, 3);
  EXPECT_EQ(dataset->info().height, 0);
  ASSERT_EQ(dataset->size(), 5);
  std::vector<std::byte> scratch;
  std::vector<std::string> read;
  for (std::int64_t i = 0; i < 5; ++i) {
    const Sample sample = dataset->read(i, scratch);
    EXPECT_EQ(sample.label, i < 3 ? 0 : 1);
    EXPECT_EQ(sample.encoding, i == 1 || i == 2 ? Encoding::png : Encoding::jpeg) << i;
    read.push_back(text(sample));
  }
  EXPECT_THAT(read, ElementsAre(kJpeg + "ca", kPng + "cb", kPng + "ci", kJpeg + "d10", kJpeg + "d2"));
  EXPECT_EQ(dataset->describe(4), folder.path("dog/2.jpg"));
}

TEST(ImageFolder, AFlatFolderIsOneClass) {
  TemporaryFolder folder;
  folder.write("photographs/1.jpg", kJpeg);
  folder.write("photographs/2.jpg", kJpeg + std::string(100000, 'x'));
  for (const std::string name : {"photographs", "photographs/"}) {
    const auto dataset = open_dataset("images:" + folder.path(name));
    EXPECT_THAT(dataset->info().classes, ElementsAre("photographs"));
    ASSERT_EQ(dataset->size(), 2);
    std::vector<std::byte> scratch;
    EXPECT_EQ(dataset->read(1, scratch).bytes.size(), kJpeg.size() + 100000);
    EXPECT_EQ(text(dataset->read(0, scratch)), kJpeg);
    EXPECT_EQ(dataset->read(0, scratch).label, 0);
  }
}

TEST(ImageFolder, ImagesAtAnyDepthBelowAClassFolderAreOfThatClass) {
  TemporaryFolder folder;
  for (const char* name : {"data/cat/more/2.jpg", "data/cat/more-1.jpg", "data/cat/more/and/more",
                           "data/cat/x.png", "data/cat/.hidden/1.jpg", "data/cat/more/.hidden.jpg",
                           "data/dog/0.jpg", "data/dog/all/1.jpg", "elsewhere/3.jpg"}) {
    folder.write(name, kJpeg);
  }
  std::filesystem::create_directory_symlink("..", folder.path("data/cat/loop"));
  std::filesystem::create_directory_symlink("../elsewhere", folder.path("data/eel"));
  for (const std::string name : {"data", "data/"}) {
    const auto dataset = open_dataset("images:" + folder.path(name));
    EXPECT_THAT(dataset->info().classes, ElementsAre("cat", "dog", "eel"));
    std::vector<std::string> found;
    for (std::int64_t i = 0; i < dataset->size(); ++i) {
      found.push_back(std::to_string(dataset->label(i)) + " " +
                      dataset->describe(i).substr(folder.path("data/").size()));
    }
    EXPECT_THAT(found, ElementsAre("0 cat/more-1.jpg", "0 cat/more/2.jpg", "0 cat/more/and/more",
                                   "0 cat/x.png", "1 dog/0.jpg", "1 dog/all/1.jpg", "2 eel/3.jpg"));
  }
}

TEST(ImageFolder, AHugeFileIsNotRead) {
  TemporaryFolder folder;
  folder.write("cat/1.jpg", kJpeg);
  std::filesystem::resize_file(folder.path("cat/1.jpg"), (std::uint64_t{1} << 28) + 1);  // sparse
  const auto dataset = open_dataset("images:" + folder.path());
  std::vector<std::byte> scratch;
  EXPECT_THAT(input_error([&] { dataset->read(0, scratch); }),
              AllOf(HasSubstr("cat/1.jpg has 268435457 bytes"), HasSubstr("at most 268435456")));
  EXPECT_TRUE(scratch.empty());
}

TEST(ImageFolder, WhatCannotBeReadIsNamed) {
  TemporaryFolder folder;
  EXPECT_THAT(open_error("images:" + folder.path("none")),
              AllOf(HasSubstr(folder.path("none")), HasSubstr("No such file")));
  EXPECT_THAT(open_error("images:" + folder.path()), HasSubstr("neither class folders nor"));
  folder.write("file.jpg", kJpeg);
  EXPECT_THAT(open_error("images:" + folder.path("file.jpg")), HasSubstr("expected a folder or a .tar file"));
  std::filesystem::remove(folder.path("file.jpg"));
  folder.write("train/dog/1.jpg", kJpeg);
  EXPECT_THAT(open_error("images:" + folder.path()), AllOf(HasSubstr("train"), HasSubstr("subfolders")));
  folder.write("a picture", kPng);
  EXPECT_THAT(
      open_error("images:" + folder.path()),
      AllOf(HasSubstr(folder.path("a picture")), HasSubstr("beside class folders; move it into one")));
  folder.write("train/empty/notes.txt", "nothing");
  EXPECT_THAT(open_error("images:" + folder.path("train")),
              AllOf(HasSubstr("class folder"), HasSubstr("train/empty")));
}

TEST(ImageFolder, AClassFolderThatIsNotMountedIsNamed) {
  TemporaryFolder folder;
  folder.write("cat/1.jpg", kJpeg);
  std::filesystem::create_symlink("nowhere", folder.path("dog"));
  EXPECT_THAT(input_error([&] { open_dataset("images:" + folder.path()); }), HasSubstr("/dog: No such file"));
}

TEST(ImageFolder, WronglyNamedAndVanishedImagesAreNamedWhenRead) {
  TemporaryFolder folder;
  folder.write("dog/1.jpg", "this is a text");
  folder.write("dog/2.jpg", "");
  folder.write("dog/3.jpg", kJpeg);
  folder.write("dog/4.webp", "RIFF");
  std::filesystem::create_symlink("nowhere", folder.path("dog/5.jpg"));
  const auto dataset = open_dataset("images:" + folder.path());
  ASSERT_EQ(dataset->size(), 5);
  EXPECT_THAT(read_error(*dataset, 0), AllOf(HasSubstr("dog/1.jpg"), HasSubstr("neither a JPEG nor a PNG")));
  EXPECT_THAT(read_error(*dataset, 1), AllOf(HasSubstr("dog/2.jpg"), HasSubstr("0 bytes")));
  EXPECT_THAT(read_error(*dataset, 3), HasSubstr("dog/4.webp"));
  EXPECT_THAT(read_error(*dataset, 4), AllOf(HasSubstr("dog/5.jpg"), HasSubstr("No such file")));
  std::filesystem::remove(folder.path("dog/3.jpg"));
  EXPECT_THAT(read_error(*dataset, 2), AllOf(HasSubstr("dog/3.jpg"), HasSubstr("No such file")));
  std::filesystem::create_directory(folder.path("dog/3.jpg"));
  EXPECT_THAT(read_error(*dataset, 2), AllOf(HasSubstr("dog/3.jpg"), HasSubstr("no regular file")));
}

}  // namespace
}  // namespace millrace
