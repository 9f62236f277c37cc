#include <charconv>
#include <fmt/format.h>

#include "base/error.h"
#include "dataio/formats/formats.h"

namespace millrace {
namespace {

constexpr int kBlankSide = 32;

/// Black images of one class.
class Blank final : public Dataset {
 public:
  explicit Blank(std::int64_t size) : size_(size) {}

  std::int64_t size() const override { return size_; }
  const DatasetInfo& info() const override { return info_; }
  Sample read(std::int64_t, std::vector<std::byte>& scratch) const override {
    scratch.assign(std::size_t{3} * kBlankSide * kBlankSide, std::byte{0});
    return {scratch, Encoding::raw_hwc, kBlankSide, kBlankSide, 3, 0};
  }
  std::int64_t label(std::int64_t) const override { return 0; }
  std::string describe(std::int64_t index) const override { return fmt::format("blank image {}", index); }

 private:
  std::int64_t size_;
  DatasetInfo info_{.height = kBlankSide, .width = kBlankSide, .channels = 3, .classes = {"blank"}};
};

}  // namespace

std::unique_ptr<Dataset> open_blank(const std::string& samples, const OpenOptions&) {
  std::int64_t size = 0;
  const auto [end, error] = std::from_chars(samples.data(), samples.data() + samples.size(), size);
  if (error != std::errc() || end != samples.data() + samples.size() || size < 1) {
    throw InputError("blank: '{}' is no number of images; expected 1 or more", samples);
  }
  return std::make_unique<Blank>(size);
}

}  // namespace millrace
