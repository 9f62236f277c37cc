#include "pipeline/image/verify.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <random>

#include "jpeg_support.h"
#include "pipeline/image/loader.h"

namespace millrace {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

constexpr int kPictureHeight = 60, kPictureWidth = 80;

/// Noise, so that most bytes of a JPEG are coded pixels.
std::vector<std::byte> encoded_picture(std::mt19937& random, const JpegOptions& options = {}) {
  std::vector<std::uint8_t> pixels(std::size_t{kPictureHeight} * kPictureWidth * 3);
  for (std::uint8_t& value : pixels) {
    value = static_cast<std::uint8_t>(random() % 256);
  }
  return encode_jpeg(pixels, kPictureHeight, kPictureWidth, options);
}

std::vector<std::byte> cut(std::vector<std::byte> bytes, std::size_t size) {
  bytes.resize(size);
  return bytes;
}

class Files final : public Dataset {
 public:
  explicit Files(std::vector<std::vector<std::byte>> files) : files_(std::move(files)) {}
  std::int64_t size() const override { return std::ssize(files_); }
  const DatasetInfo& info() const override { return info_; }
  Sample read(std::int64_t index, std::vector<std::byte>&) const override {
    const auto& bytes = files_[static_cast<std::size_t>(index)];
    if (bytes.empty()) {
      throw InputError("file {}: missing", index);
    }
    return {.bytes = bytes, .encoding = Encoding::jpeg};
  }
  std::string describe(std::int64_t index) const override { return fmt::format("file {}", index); }

 private:
  std::vector<std::vector<std::byte>> files_;
  DatasetInfo info_;
};

TEST(Verify, NamesWhatIsCutBehindItsHeaderInOrder) {
  std::mt19937 random(3);
  std::vector<std::vector<std::byte>> files;
  for (const bool progressive : {false, true}) {
    const auto good = encoded_picture(random, {.progressive = progressive});
    for (const std::size_t size : {good.size(), good.size() / 2, good.size() * 9 / 10, good.size() - 2}) {
      files.push_back(cut(good, size));
    }
  }
  files.emplace_back();
  while (files.size() < 100) {
    files.push_back(files[0]);
  }
  files.push_back(files[3]);
  const Files data(files);
  for (const int threads : {1, 4}) {
    std::vector<std::string> named;
    std::int64_t last = 0;
    const Verified verified =
        verify(data, {.threads = threads,
                      .on_damaged = [&](const std::string& reason) { named.push_back(reason); },
                      .on_progress = [&](std::int64_t done) { EXPECT_LT(std::exchange(last, done), done); }});
    EXPECT_EQ(verified.damaged, 8);
    EXPECT_EQ(verified.decoded, 93);
    EXPECT_EQ(last, 101);
    EXPECT_THAT(named, ElementsAre(HasSubstr("file 1: damaged JPEG"), HasSubstr("file 2: damaged JPEG"),
                                   HasSubstr("file 3: damaged JPEG"), HasSubstr("file 5: damaged JPEG"),
                                   HasSubstr("file 6: damaged JPEG"), HasSubstr("file 7: damaged JPEG"),
                                   HasSubstr("file 8: missing"), HasSubstr("file 100: damaged JPEG")));
  }
}

TEST(Verify, TakesForDamagedWhatALoaderTakesForBad) {
  const auto seed = std::random_device{}();
  SCOPED_TRACE(seed);
  std::mt19937 random(seed);
  std::vector<std::vector<std::byte>> files{encoded_picture(random)};
  for (int i = 0; i < 200; ++i) {
    files.push_back(encoded_picture(random, {.progressive = i % 2 == 0, .restart_rows = i % 3 == 0}));
    for (int k = 0; k < i % 4; ++k) {
      files.back()[files.back().size() / 2 + random() % (files.back().size() / 2)] ^=
          std::byte(1 << random() % 8);
    }
  }
  const auto data = std::make_shared<Files>(files);
  std::vector<std::string> damaged, bad;
  verify(*data, {.on_damaged = [&](const std::string& reason) { damaged.push_back(reason); }});
  Loader loader{data,
                {.batch_size = 1,
                 .order = {.kind = Order::sequential},
                 .bad_samples = BadSamples::mask,
                 .max_bad_rate = 1,
                 .on_bad_sample = [&](const BadSample& sample) { bad.push_back(sample.reason); }}};
  for (const Batch& batch : loader.epoch(0)) {
    EXPECT_LE(batch.valid(), 1);
  }
  EXPECT_EQ(damaged, bad);
  EXPECT_GT(damaged.size(), 10u);
  EXPECT_LT(damaged.size(), 190u);
}

}  // namespace
}  // namespace millrace
