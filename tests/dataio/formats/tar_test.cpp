#include "dataio/formats/tar.h"

#include <cstdlib>
#include <functional>

#include "dataio/dataset.h"
#include "tar_writer.h"
#include "tests/base/temporary_folder.h"
#include "tests/dataio/formats/sample_files.h"

namespace millrace {
namespace {

using test::input_error;
using test::kJpeg;
using test::kPng;
using test::open_error;
using test::tar_end;
using test::tar_header;
using test::tar_member;
using test::TemporaryFolder;
using test::text;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

/// "name=content" of every file in an archive, read both ways.
std::vector<std::string> members(const std::string& path) {
  std::vector<std::string> both;
  for (const Reading reading : {Reading::map, Reading::read}) {
    const DataFile file(path, reading);
    std::vector<std::string> found;
    std::vector<std::byte> scratch;
    TarReader tar(file);
    for (TarMember member; tar.next(member);) {
      found.push_back(member.name + "=" + text(file.read(member.offset, member.size, scratch)));
    }
    if (reading == Reading::read) {
      EXPECT_EQ(found, both);
    }
    both = found;
  }
  return both;
}

class Archive : public testing::Test {
 protected:
  std::vector<std::string> members_of(const std::string& bytes) {
    folder.write("a.tar", bytes);
    return members(folder.path("a.tar"));
  }
  std::string error_of(const std::string& bytes) {
    return input_error([&] { members_of(bytes); });
  }
  TemporaryFolder folder;
};

TEST_F(Archive, WhatTarWritesInAnyFormatIsRead) {
  const std::string longer(90, 'd'), name = longer + "/" + longer + "/" + longer + ".txt";
  folder.write("in/" + name, "deep");
  folder.write("in/b.txt", std::string(1000, 'b'));
  folder.write("in/empty.txt", "");
  std::filesystem::create_symlink("b.txt", folder.path("in/link"));
  std::filesystem::create_hard_link(folder.path("in/b.txt"), folder.path("in/z-hard"));
  for (const std::string format : {"gnu", "pax", "oldgnu"}) {
    const std::string command = "tar --sort=name --format=" + format + " -C " + folder.path("in") + " -cf " +
                                folder.path(format + ".tar") + " .";
    ASSERT_EQ(std::system(command.c_str()), 0) << command;
    EXPECT_THAT(
        members(folder.path(format + ".tar")),
        testing::UnorderedElementsAre(name + "=deep", "b.txt=" + std::string(1000, 'b'), "empty.txt="))
        << format;
  }
  // ustar splits a long name in two.
  const std::string split = std::string(90, 'e') + "/" + std::string(50, 'f');
  folder.write("split/" + split, "half");
  const std::string command =
      "tar --format=ustar -C " + folder.path("split") + " -cf " + folder.path("ustar.tar") + " .";
  ASSERT_EQ(std::system(command.c_str()), 0) << command;
  EXPECT_THAT(members(folder.path("ustar.tar")), ElementsAre(split + "=half"));
}

TEST_F(Archive, SizesInBinaryAndInPaxHeadersCount) {
  std::string binary = tar_header("binary", 0);
  binary.replace(124, 12, std::string("\x80\0\0\0\0\0\0\0\0\0\0\x05", 12));
  test::seal(binary);
  const std::string pax = tar_member("pax", "19 comment=a=b\nc=d\n12 size=600\n16 path=renamed\n", 'x');
  EXPECT_THAT(members_of(binary + test::padded("12345") + pax + tar_header("short", 3) +
                         test::padded(std::string(600, 'p')) + tar_member("after", "x") + tar_end()),
              ElementsAre("binary=12345", "renamed=" + std::string(600, 'p'), "after=x"));
}

TEST_F(Archive, WhatIsNoFileIsPassedOver) {
  std::string bytes = tar_member("volume", "", 'V') + tar_member("new kind", "600 bytes and more", 'Z') +
                      tar_header("old folder/", 0, '\0') + tar_member("old file", "old", '\0');
  for (char type = '1'; type <= '6'; ++type) {  // their size is none
    bytes += tar_header("named", 1000, type);
  }
  EXPECT_THAT(members_of(bytes + tar_member("./././file", "x", '7') + tar_end()),
              ElementsAre("old file=old", "file=x"));
}

TEST_F(Archive, SeveralRecordsBeforeAMemberAddUp) {
  const std::string size = tar_member("pax", "12 size=600\n", 'x'), name = tar_member("long", "renamed", 'L');
  const std::string global = tar_member("pax", "13 path=none\n", 'g'), link = tar_member("link", "x", 'K');
  for (const std::string& before : {size + name, name + size, global + size + link + name}) {
    EXPECT_THAT(members_of(before + tar_header("short", 3) + test::padded(std::string(600, 'p')) +
                           tar_member("after", "x") + tar_end()),
                ElementsAre("renamed=" + std::string(600, 'p'), "after=x"));
  }
}

TEST_F(Archive, CutArchivesAreNamedWithTheOffset) {
  const std::string whole = tar_member("a", std::string(600, 'a')) + tar_member("b", "b") + tar_end();
  for (std::size_t size = 0; size < 512 + 1024 + 1024; size += 37) {
    EXPECT_THAT(error_of(whole.substr(0, size)), AllOf(HasSubstr("a.tar is cut"), HasSubstr("offset")))
        << size;
  }
  EXPECT_THAT(error_of(whole.substr(0, 700)),
              AllOf(HasSubstr("600 bytes of a at offset 0"), HasSubstr("188 do")));
  EXPECT_THAT(error_of(whole.substr(0, 1536)), HasSubstr("offset 1536 a header or the end mark"));
}

TEST_F(Archive, DamagedHeadersAreNamedWithTheOffset) {
  const std::string first = tar_member("a", "a");
  std::string damaged = tar_member("b", "b");
  damaged[3] ^= 1;
  EXPECT_THAT(error_of(first + damaged + tar_end()), AllOf(HasSubstr("a.tar"), HasSubstr("offset 1024")));
  EXPECT_THAT(error_of(std::string(2048, 'x')), HasSubstr("no good header at offset 0"));
  EXPECT_THAT(error_of(first + tar_end() + first + tar_end()),
              AllOf(HasSubstr("end mark at offset 1024"), HasSubstr("more data at 2048")));
  EXPECT_THAT(error_of(tar_member("s", "", 'S') + tar_end()), HasSubstr("sparse"));
}

TEST_F(Archive, AbsurdSizesAreNamed) {
  for (const std::string& size :
       {std::string("\x80\0\0\0\x7F\xFF\xFF\xFF\xFF\xFF\xFF\xFF", 12),  // 2^63 - 1
        std::string("\x80\0\0\0\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF", 12),
        std::string("\x80\0\x01\0\0\0\0\0\0\0\0\0", 12),  // 2^72
        std::string(12, '\xFF'), std::string("777777777777"), std::string("12x456789012")}) {
    std::string header = tar_header("huge", 0);
    header.replace(124, 12, size);
    test::seal(header);
    EXPECT_THAT(error_of(header + tar_end()), AllOf(HasSubstr("a.tar"), HasSubstr("offset 0")));
  }
  EXPECT_THAT(error_of(tar_member("pax", "29 size=99999999999999999999\n", 'x') + tar_end()),
              HasSubstr("pax header"));
  EXPECT_THAT(
      error_of(tar_member("pax", "28 size=9223372036854775807\n", 'x') + tar_member("a", "") + tar_end()),
      HasSubstr("is cut"));
  for (const std::string pax : {"5", "x path=a\n", "99 path=a\n", "3 a", "8 patha\n", "0 path=a\n"}) {
    EXPECT_THAT(error_of(tar_member("pax", pax, 'x') + tar_member("a", "") + tar_end()),
                HasSubstr("pax header"))
        << pax;
  }
  EXPECT_THAT(error_of(tar_member("long", std::string((1 << 20) + 1, 'n'), 'L') + tar_end()),
              HasSubstr("1048577 bytes"));
}

// images:FILE.tar
// -----------------------------------------------------------------------------------------------------------

TEST(ImageTar, FoldersAreClassesAndSamplesComeInTheArchivesOrder) {
  TemporaryFolder folder;
  folder.write("x.tar",
               tar_header("./", 0, '5') + tar_member("./train/dog/2.jpg", kJpeg + "d2") +
                   tar_member("./train/cat/1", kPng + "c1") + tar_member("./train/cat/notes.txt", "none") +
                   tar_member("./train/cat/.hidden.jpg", kJpeg) + tar_member("./README.md", "about") +
                   tar_member("./train/dog/1.JPEG", kPng + "d1") + tar_end());
  for (const Reading reading : {Reading::map, Reading::read}) {
    const auto dataset = open_dataset("images:" + folder.path("x.tar"), {.reading = reading});
    EXPECT_THAT(dataset->info().classes, ElementsAre("cat", "dog"));
    ASSERT_EQ(dataset->size(), 3);
    std::vector<std::byte> scratch;
    const Sample first = dataset->read(0, scratch);
    EXPECT_EQ(text(first.bytes), kJpeg + "d2");
    EXPECT_EQ(first.encoding, Encoding::jpeg);
    EXPECT_EQ(first.label, 1);
    EXPECT_EQ(dataset->label(1), 0);
    EXPECT_EQ(dataset->read(2, scratch).encoding, Encoding::png);
    EXPECT_EQ(dataset->describe(2), folder.path("x.tar") + " at offset 6144 (train/dog/1.JPEG)");
  }
}

TEST(ImageTar, ClassesAreNamedFromWhereTheFoldersDiffer) {
  const auto classes = [](const std::vector<std::string>& names) {
    TemporaryFolder folder;
    std::string bytes;
    for (const std::string& name : names) {
      bytes += tar_member(name, kJpeg);
    }
    folder.write("x.tar", bytes + tar_end());
    return open_dataset("images:" + folder.path("x.tar"))->info().classes;
  };
  EXPECT_THAT(classes({"1.jpg", "2.jpg"}), ElementsAre("x"));
  EXPECT_THAT(classes({"all/photographs/1.jpg"}), ElementsAre("photographs"));
  EXPECT_THAT(classes({"a/1.jpg", "a-x/1.jpg", "a/b/1.jpg"}), ElementsAre("a", "a-x", "a/b"));
  EXPECT_THAT(classes({"a/1.jpg", "a/b/1.jpg"}), ElementsAre(".", "b"));
  EXPECT_THAT(classes({"t/ab/1.jpg", "t/ac/1.jpg"}), ElementsAre("ab", "ac"));
}

TEST(ImageTar, WhatCannotBeReadIsNamed) {
  TemporaryFolder folder;
  folder.write("x.tar", tar_member("notes.txt", "none") + tar_end());
  EXPECT_THAT(open_error("images:" + folder.path("x.tar")), HasSubstr("x.tar holds no samples"));
  folder.write("y.tar", tar_member("a.jpg", "not a JPEG") + tar_end());
  const auto dataset = open_dataset("images:" + folder.path("y.tar"));
  std::vector<std::byte> scratch;
  EXPECT_THAT(input_error([&] { dataset->read(0, scratch); }),
              AllOf(HasSubstr("y.tar at offset 512 (a.jpg)"), HasSubstr("neither a JPEG nor a PNG")));
}

TEST(ImageTar, AHugeMemberIsNotRead) {
  TemporaryFolder folder;
  const std::size_t size = (std::size_t{1} << 28) + 1;
  folder.write("x.tar", tar_header("1.jpg", size) + kJpeg);
  std::filesystem::resize_file(folder.path("x.tar"), size + 4096);  // sparse; zeros end it
  for (const Reading reading : {Reading::map, Reading::read}) {
    const auto dataset = open_dataset("images:" + folder.path("x.tar"), {.reading = reading});
    std::vector<std::byte> scratch;
    EXPECT_THAT(
        input_error([&] { dataset->read(0, scratch); }),
        AllOf(HasSubstr("x.tar at offset 512 (1.jpg) has 268435457 bytes"), HasSubstr("at most 268435456")));
    EXPECT_TRUE(scratch.empty());
  }
}

// tar:GLOB
// -----------------------------------------------------------------------------------------------------------

TEST(WebDataset, ConsecutiveFilesOfOneNameAreASample) {
  TemporaryFolder folder;
  folder.write("s-1.tar", tar_member("b/0.seg.png", kPng) + tar_member("b/0.jpg", kJpeg + "3") +
                              tar_member("b/0.cls", " 2\n") + tar_end());
  folder.write("s-0.tar", tar_member("0.cls", "1") + tar_member("0.jpeg", kJpeg + "1") +
                              tar_member("0.txt", "a dog") + tar_member("readme", "") +
                              tar_member("x.y/1.PNG", kPng + "2") +
                              tar_member("x.y/1.json", R"({"a": [1], "label": 0})") + tar_end());
  for (const Reading reading : {Reading::map, Reading::read}) {
    const auto dataset = open_dataset("tar:" + folder.path("s-*"), {.reading = reading});
    ASSERT_EQ(dataset->size(), 3);
    EXPECT_THAT(dataset->info().classes, ElementsAre("0", "1", "2"));
    std::vector<std::byte> scratch;
    std::vector<std::string> read;
    for (std::int64_t i = 0; i < 3; ++i) {
      const Sample sample = dataset->read(i, scratch);
      EXPECT_EQ(sample.label, dataset->label(i));
      read.push_back(std::to_string(sample.label) + text(sample.bytes));
    }
    EXPECT_THAT(read, ElementsAre("1" + kJpeg + "1", "0" + kPng + "2", "2" + kJpeg + "3"));
    EXPECT_EQ(dataset->describe(2), folder.path("s-1.tar") + " at offset 1536 (b/0.jpg)");
  }
  EXPECT_EQ(open_dataset("tar:" + folder.path("s-{0,1}.tar"))->size(), 3);
  EXPECT_EQ(open_dataset("tar:" + folder.path("s-{*,0.tar}"))->size(), 3) << "a part that is named twice";
  EXPECT_THAT(open_error("tar:" + folder.path("t-*")), HasSubstr("t-*: there is no such file"));
}

TEST(WebDataset, ClassesTxtNamesTheClasses) {
  TemporaryFolder folder;
  folder.write("s.tar", tar_member("0.cls", "1") + tar_member("0.jpg", kJpeg) + tar_end());
  folder.write("classes.txt", "cat\r\ndog\r\nbird\r\n");
  EXPECT_THAT(open_dataset("tar:" + folder.path("s.tar"))->info().classes, ElementsAre("cat", "dog", "bird"));
  folder.write("classes.txt", "cat\n");
  EXPECT_THAT(open_error("tar:" + folder.path("s.tar")), AllOf(HasSubstr("label 1"), HasSubstr("1 classes")));
  std::filesystem::remove(folder.path("classes.txt"));
  folder.make_pipe("classes.txt");
  const test::TimeLimit limit;
  EXPECT_THAT(open_error("tar:" + folder.path("s.tar")), HasSubstr("classes.txt: it is no regular file"));
}

TEST(WebDataset, SamplesThatAreNotWholeAreNamed) {
  const auto error = [](const std::string& bytes) {
    TemporaryFolder folder;
    folder.write("s.tar", bytes + tar_end());
    return open_error("tar:" + folder.path("s.tar"));
  };
  const std::string image = tar_member("7.jpg", kJpeg);
  EXPECT_THAT(error(image), AllOf(HasSubstr("s.tar at offset 0 (7.jpg)"), HasSubstr("no label")));
  EXPECT_THAT(error(image + tar_member("8.cls", "1")), HasSubstr("no label"));
  EXPECT_THAT(error(tar_member("7.cls", "1")), AllOf(HasSubstr("7.cls"), HasSubstr("no image")));
  EXPECT_THAT(error(image + tar_member("7.png", kPng)), HasSubstr("two images"));
  EXPECT_THAT(error(image + image), HasSubstr("two images"));
  for (const std::string label : {"", "dog", "1.5", "1 2", "0x1", "99999999999999999999"}) {
    EXPECT_THAT(error(image + tar_member("7.cls", label)),
                AllOf(HasSubstr("offset 1024 (7.cls)"), HasSubstr("whole number")))
        << label;
  }
  EXPECT_THAT(error(image + tar_member("7.cls", "-1")), HasSubstr("label -1"));
  EXPECT_THAT(error(image + tar_member("7.cls", "1000000")), HasSubstr("label 1000000"));
  for (const std::string json : {"", "{", "[1]", "{\"label\": \"dog\"}", "{\"label\": 1.5}"}) {
    EXPECT_THAT(error(image + tar_member("7.json", json)),
                AllOf(HasSubstr("7.json"), HasSubstr("JSON object")))
        << json;
  }
  EXPECT_THAT(error(image + tar_member("7.json", "{\"label\": 18446744073709551615}")), HasSubstr("label"));
  EXPECT_THAT(error(image + tar_member("7.json", std::string(100000, '['))), HasSubstr("JSON object"));
}

// Kept indexes
// -----------------------------------------------------------------------------------------------------------

class KeptIndex : public testing::Test {
 protected:
  void write(const std::string& label, const std::string& pixels = "") {
    folder.write("s.tar", tar_member("0.cls", label) + tar_member("0.jpg", kJpeg + pixels) + tar_end());
  }
  std::int64_t label() { return open_dataset("tar:" + folder.path("s.tar"))->label(0); }
  std::filesystem::path kept() { return folder.path("s.tar.mlx"); }

  TemporaryFolder folder;
};

TEST_F(KeptIndex, IsUsedWhileTheFileIsTheSame) {
  write("3");
  EXPECT_EQ(label(), 3);
  ASSERT_TRUE(std::filesystem::exists(kept()));
  const auto time = std::filesystem::last_write_time(folder.path("s.tar"));
  const auto written = time - std::chrono::hours(1);
  std::filesystem::last_write_time(kept(), written);
  EXPECT_EQ(label(), 3);
  EXPECT_EQ(std::filesystem::last_write_time(kept()), written) << "it was built again";
  // Other bytes of the same size at the same time; then the same bytes at another time.
  write("4");
  std::filesystem::last_write_time(folder.path("s.tar"), time);
  EXPECT_EQ(label(), 4);
  const auto second = time - std::chrono::hours(2);
  std::filesystem::last_write_time(kept(), second);
  std::filesystem::last_write_time(folder.path("s.tar"), time - std::chrono::hours(1));
  EXPECT_EQ(label(), 4);
  EXPECT_NE(std::filesystem::last_write_time(kept()), second) << "it was not built again";
  write("5", "more");
  EXPECT_EQ(label(), 5);
}

TEST_F(KeptIndex, IsBuiltAgainForAnotherKind) {
  write("3");
  EXPECT_EQ(open_dataset("images:" + folder.path("s.tar"))->info().classes, std::vector<std::string>{"s"});
  EXPECT_EQ(label(), 3);
  EXPECT_EQ(open_dataset("images:" + folder.path("s.tar"))->info().classes, std::vector<std::string>{"s"});
}

TEST_F(KeptIndex, DamagedOnesAreBuiltAgain) {
  write("3");
  EXPECT_EQ(label(), 3);
  std::string good(std::filesystem::file_size(kept()), ' ');
  std::ifstream(kept(), std::ios::binary).read(good.data(), static_cast<std::streamsize>(good.size()));
  for (std::size_t i = 0; i < good.size(); ++i) {
    std::string bad = good;
    bad[i] ^= 0x40;
    folder.write("s.tar.mlx", bad);
    ASSERT_EQ(label(), 3) << "byte " << i;
    folder.write("s.tar.mlx", good.substr(0, i));
    ASSERT_EQ(label(), 3) << "cut to " << i;
  }
  std::filesystem::remove(kept());
  std::filesystem::create_directory(kept());
  EXPECT_EQ(label(), 3);
}

TEST_F(KeptIndex, StaysInMemoryWhereTheFolderCannotBeWritten) {
  write("3");
  // Root writes everywhere but over a folder that is not empty.
  folder.write("s.tar.mlx/in the way", "");
  EXPECT_EQ(label(), 3);
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder.path()), {}), 2)
      << "a temporary file is left";
}

}  // namespace
}  // namespace millrace
