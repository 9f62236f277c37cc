#include "dataio/random_images.h"

#include <array>
#include <fmt/format.h>
#include <span>

#include "base/philox.h"

namespace millrace {

RandomImages::RandomImages(std::int64_t count, const Form& form)
    : count_(count),
      image_bytes_(static_cast<std::size_t>(form.channels) * static_cast<std::size_t>(form.height) *
                   static_cast<std::size_t>(form.width)),
      pixels_(static_cast<std::size_t>(count) * image_bytes_) {
  info_.channels = form.channels;
  info_.height = form.height;
  info_.width = form.width;
  info_.classes.assign(static_cast<std::size_t>(form.classes), "class");
  std::array<std::uint32_t, 4> words{};
  for (std::size_t i = 0; i < pixels_.size(); ++i) {
    if (i % 16 == 0) {
      words = philox({static_cast<std::uint32_t>(i / 16), 0, 0, 0}, {0, 0});
    }
    pixels_[i] = static_cast<std::byte>(words[i / 4 % 4] >> (i % 4 * 8));
  }
}

std::string RandomImages::describe(std::int64_t index) const { return fmt::format("random image {}", index); }

Sample RandomImages::read(std::int64_t index, std::vector<std::byte>& /*scratch*/) const {
  const std::span<const std::byte> bytes(pixels_);
  return {bytes.subspan(static_cast<std::size_t>(index) * image_bytes_, image_bytes_),
          Encoding::raw_hwc,
          info_.height,
          info_.width,
          info_.channels,
          index % static_cast<std::int64_t>(info_.classes.size())};
}

}  // namespace millrace
