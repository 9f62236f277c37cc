#include "pipeline/image/convert.h"

#include <filesystem>

#include "jpeg_support.h"
#include "pipeline/image/jpeg_header.h"
#include "tests/base/temporary_folder.h"

namespace millrace {
namespace {

using testing::AllOf;
using testing::HasSubstr;

constexpr int kPictures = 50;

/// JPEGs of growing sizes; one of them may be cut.
class Pictures final : public Dataset {
 public:
  explicit Pictures(int cut = -1) {
    for (int i = 0; i < kPictures; ++i) {
      jpegs_.push_back(encode_jpeg(std::vector<std::uint8_t>(static_cast<std::size_t>((20 + i) * 30 * 3),
                                                             static_cast<std::uint8_t>(i)),
                                   20 + i, 30, {}));
      if (i == cut) {
        jpegs_.back().resize(jpegs_.back().size() / 2);
      }
    }
  }
  std::int64_t size() const override { return kPictures; }
  const DatasetInfo& info() const override { return info_; }
  Sample read(std::int64_t index, std::vector<std::byte>&) const override {
    return {.bytes = jpegs_[static_cast<std::size_t>(index)], .encoding = Encoding::jpeg, .label = index % 2};
  }
  std::string describe(std::int64_t index) const override { return fmt::format("picture {}", index); }

 private:
  std::vector<std::vector<std::byte>> jpegs_;
  DatasetInfo info_{.classes = {"even", "odd"}};
};

std::string content(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

TEST(Convert, KeepsOrderBytesLabelsAndNames) {
  test::TemporaryFolder folder;
  const Pictures pictures;
  std::int64_t seen = 0;
  const Converted done =
      convert(pictures, folder.path("a.mlr"),
              {.threads = 3, .on_progress = [&](std::int64_t records) { EXPECT_EQ(records, ++seen); }});
  EXPECT_EQ(seen, kPictures);
  EXPECT_EQ(done.records, kPictures);
  EXPECT_EQ(done.files, 1);
  EXPECT_EQ(done.bytes, static_cast<std::int64_t>(std::filesystem::file_size(folder.path("a.mlr"))));
  const auto records = open_dataset("records:" + folder.path("a.mlr"));
  ASSERT_EQ(records->size(), kPictures);
  EXPECT_EQ(records->info().classes, pictures.info().classes);
  std::vector<std::byte> scratch, none;
  for (std::int64_t i = 0; i < kPictures; ++i) {
    const Sample got = records->read(i, scratch), expected = pictures.read(i, none);
    EXPECT_TRUE(std::equal(got.bytes.begin(), got.bytes.end(), expected.bytes.begin(), expected.bytes.end()));
    EXPECT_EQ(got.label, expected.label);
    EXPECT_EQ(got.encoding, Encoding::jpeg);
    EXPECT_THAT(records->describe(i), HasSubstr(fmt::format("(picture {})", i)));
  }
}

TEST(Convert, ThreadsDoNotChangeTheFile) {
  test::TemporaryFolder folder;
  for (const int threads : {1, 2, 5}) {
    convert(Pictures(), folder.path(fmt::format("{}.mlr", threads)),
            {.restart_rows = true, .threads = threads});
  }
  EXPECT_EQ(content(folder.path("1.mlr")), content(folder.path("2.mlr")));
  EXPECT_EQ(content(folder.path("1.mlr")), content(folder.path("5.mlr")));
}

TEST(Convert, RestartRows) {
  test::TemporaryFolder folder;
  convert(Pictures(), folder.path("a.mlr"), {.restart_rows = true});
  const auto records = open_dataset("records:" + folder.path("a.mlr"));
  std::vector<std::byte> scratch;
  EXPECT_TRUE(read_jpeg_header(records->read(7, scratch).bytes).has_restart_rows());
}

TEST(Convert, AFailureNamesTheSampleAndLeavesNothing) {
  test::TemporaryFolder folder;
  EXPECT_THAT(test::input_error([&] {
                convert(Pictures(17), folder.path("a.mlr"), {.part_size = 3000, .restart_rows = true});
              }),
              AllOf(HasSubstr("picture 17"), HasSubstr("JPEG")));
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
  folder.write("a.mlr", "another");
  EXPECT_THAT(test::input_error([&] { convert(Pictures(), folder.path("a.mlr")); }), HasSubstr("exists"));
}

}  // namespace
}  // namespace millrace
