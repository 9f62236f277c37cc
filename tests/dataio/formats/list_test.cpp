#include "dataio/dataset.h"
#include "dataio/formats/csv.h"
#include "tests/base/temporary_folder.h"
#include "tests/dataio/formats/sample_files.h"

namespace millrace {
namespace {

using test::input_error;
using test::kJpeg;
using test::open_error;
using test::TemporaryFolder;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

std::vector<std::vector<std::string>> rows(std::string_view text) {
  CsvReader csv(text, "x.csv");
  std::vector<std::vector<std::string>> rows;
  for (std::vector<std::string> fields; csv.next(fields);) {
    rows.push_back(fields);
  }
  return rows;
}

TEST(Csv, FieldsAndQuotes) {
  EXPECT_THAT(rows(""), ElementsAre());
  EXPECT_THAT(rows("\xEF\xBB\xBF"
                   "a, b b ,c\r\n\r\n\n\"d,\"\"\n\",\"\"\n,"),
              ElementsAre(ElementsAre("a", "b b", "c"), ElementsAre("d,\"\n", ""), ElementsAre("", "")));
  EXPECT_THAT(rows("one"), ElementsAre(ElementsAre("one")));
  EXPECT_THAT(input_error([] { rows("a\n\"x\ny\"\nb,\"c"); }),
              AllOf(HasSubstr("x.csv, line 4 (offset 8)"), HasSubstr("not closed")));
  EXPECT_THAT(input_error([] { rows("a\n\"b\"c"); }), AllOf(HasSubstr("line 2"), HasSubstr("offset 5")));
}

TEST(List, PathsAreRelativeToTheListAndNamesAreSorted) {
  TemporaryFolder folder;
  folder.write("images/1,2.jpg", kJpeg + "1");
  folder.write("2.jpg", kJpeg + "2");
  folder.write("lists/train.csv",
               "Path,Label\n\"../images/1,2.jpg\",dog\n../2.jpg,cat\n" + folder.path("2.jpg") + ",2\n");
  const auto dataset = open_dataset("list:" + folder.path("lists/train.csv"));
  EXPECT_THAT(dataset->info().classes, ElementsAre("2", "cat", "dog"));
  ASSERT_EQ(dataset->size(), 3);
  std::vector<std::byte> scratch;
  const Sample first = dataset->read(0, scratch);
  EXPECT_EQ(first.bytes.size(), kJpeg.size() + 1);
  EXPECT_EQ(first.label, 2);
  EXPECT_EQ(dataset->label(1), 1);
  EXPECT_EQ(dataset->read(2, scratch).label, 0);
  EXPECT_EQ(dataset->describe(0), folder.path("lists/../images/1,2.jpg"));
}

TEST(List, NumbersStayNumbers) {
  TemporaryFolder folder;
  folder.write("x.csv", "a.jpg,10\nb.jpg,2\n");
  const auto dataset = open_dataset("list:" + folder.path("x.csv"));
  EXPECT_EQ(dataset->info().classes.size(), 11u);
  EXPECT_EQ(dataset->info().classes[10], "10");
  EXPECT_EQ(dataset->label(0), 10);
  folder.write("y.csv", "a.jpg,2\nb.jpg,10\n");
  EXPECT_NE(dataset->fingerprint(), open_dataset("list:" + folder.path("y.csv"))->fingerprint());
}

TEST(List, WhatCannotBeReadIsNamedWithItsLine) {
  TemporaryFolder folder;
  const auto error = [&](const std::string& text) {
    folder.write("x.csv", text);
    return open_error("list:" + folder.path("x.csv"));
  };
  EXPECT_THAT(open_error("list:" + folder.path("none.csv")), HasSubstr("none.csv"));
  EXPECT_THAT(error(""), HasSubstr("names no images"));
  EXPECT_THAT(error("path,label\n"), HasSubstr("names no images"));
  EXPECT_THAT(error("a.jpg,1\nb.jpg\n"), AllOf(HasSubstr("x.csv, line 2 (offset 8)"), HasSubstr("1 fields")));
  EXPECT_THAT(error("a.jpg,1,2\n"), HasSubstr("3 fields"));
  EXPECT_THAT(error("a.jpg,\n"), HasSubstr("label"));
  EXPECT_THAT(error(",1\n"), HasSubstr("path"));
  EXPECT_THAT(error(std::string("a\0b,1\n", 6)), HasSubstr("path"));
  EXPECT_THAT(error("a.jpg,1000000\n"), AllOf(HasSubstr("line 1"), HasSubstr("0 to 999999")));
  EXPECT_THAT(error("a.jpg,99999999999999999999\n"), HasSubstr("0 to 999999"));
  EXPECT_THAT(error("a.jpg,1\nb.jpg,-1\n"), AllOf(HasSubstr("line 2"), HasSubstr("0 to 999999")));
  EXPECT_THAT(error("a.jpg,caf\xE9\n"), HasSubstr("UTF-8"));
  EXPECT_THAT(error(std::string("a.jpg,x\0y\n", 10)), HasSubstr("UTF-8"));
  EXPECT_EQ(error("a.jpg,café\n"), "(no error)");
  folder.write("x.csv", "a.jpg,1\n");
  const auto dataset = open_dataset("list:" + folder.path("x.csv"));
  std::vector<std::byte> scratch;
  EXPECT_THAT(input_error([&] { dataset->read(0, scratch); }),
              AllOf(HasSubstr("a.jpg"), HasSubstr("No such file")));
  folder.write("a.jpg", "a text");
  EXPECT_THAT(input_error([&] { dataset->read(0, scratch); }), HasSubstr("neither a JPEG nor a PNG"));
}

}  // namespace
}  // namespace millrace
