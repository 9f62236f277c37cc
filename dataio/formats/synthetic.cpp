#include <algorithm>
#include <array>
#include <charconv>
#include <cstdlib>

#include "base/error.h"
#include "base/philox.h"
#include "dataio/formats/formats.h"

namespace millrace {

namespace {

// All arithmetic is in integers, so that every processor draws the same bytes. Lengths are in eighths of a
// pixel.
constexpr int kImageSide = 32;
constexpr int kUnit = 8;
constexpr std::size_t kRow = 3 * kImageSide;
constexpr std::size_t kBytes = kRow * kImageSide;
constexpr std::uint64_t kStream = 0x73796E7468657469;  // keys its random numbers
constexpr int kFull = 256;                             // coverage: 0 is background, kFull is foreground

const std::vector<std::string> kShapes = {"disc",  "ring",    "square",   "frame", "triangle",
                                          "cross", "stripes", "checkers", "dots",  "gradient"};

/// What distinguishes one image from the next of its class.
struct Drawing {
  int center_x, center_y;
  int cosine, sine;  // of its rotation, times 64
  int radius;
  int frequency;  // of textures, in 1024ths of a period per unit
  int phase;
  std::array<int, 3> background, contrast;
  std::uint32_t noise;
};

Drawing drawing(std::int64_t index, std::uint64_t key) {
  // The cosine of multiples of 22.5 degrees; the sine is it, four places back.
  constexpr std::array<int, 16> kCosine = {64,  59,  45,  24,  0, -24, -45, -59,
                                           -64, -59, -45, -24, 0, 24,  45,  59};
  std::array<std::uint32_t, 12> words;
  for (std::uint32_t draw = 0; draw < 3; ++draw) {
    const auto four =
        philox({static_cast<std::uint32_t>(index), static_cast<std::uint32_t>(index >> 32), draw, 0},
               {static_cast<std::uint32_t>(key), static_cast<std::uint32_t>(key >> 32)});
    std::copy(four.begin(), four.end(), words.begin() + 4 * draw);
  }
  const auto between = [&](std::size_t word, int low, int high) {  // [low, high)
    return low + static_cast<int>(std::uint64_t{words[word]} * static_cast<std::uint32_t>(high - low) >> 32);
  };
  Drawing d;
  d.center_x = between(0, 11 * kUnit, 21 * kUnit);
  d.center_y = between(1, 11 * kUnit, 21 * kUnit);
  const int angle = between(2, 0, 16);
  d.cosine = kCosine[static_cast<std::size_t>(angle)];
  d.sine = kCosine[static_cast<std::size_t>(angle + 12) % 16];
  d.radius = between(3, 6 * kUnit, 11 * kUnit);
  d.frequency = between(4, 12, 24);
  d.phase = between(5, 0, 1024);
  for (std::size_t channel = 0; channel < 3; ++channel) {
    const int background = between(6 + channel, 0, 256);
    d.background[channel] = background;
    d.contrast[channel] = (background + 96 + between(9 + channel, 0, 64)) % 256 - background;
  }
  d.noise = words[0] ^ words[11];
  return d;
}

constexpr int clamp_coverage(int value) { return std::clamp(value, 0, kFull); }

/// Coverage of what lies `distance` inside of an edge: one pixel of soft edge.
constexpr int inside(int distance) { return clamp_coverage(distance * (kFull / kUnit) + kFull / 2); }

constexpr int hollow(int outside, int hole) { return outside < kFull - hole ? outside : kFull - hole; }

/// A triangle wave, 0 to 512, over positions along one axis.
constexpr int wave(const Drawing& d, int position) {
  return std::abs(((position * d.frequency + d.phase) & 1023) - 512);
}

/// The coverage at (u, v), rotated coordinates about the centre, of each class in turn.
struct Disc {
  static constexpr int round(int radius, int u, int v) {
    return clamp_coverage((radius * radius - u * u - v * v) * (4096 / radius) / 256 + kFull / 2);
  }
  static constexpr int at(const Drawing& d, int u, int v) { return round(d.radius, u, v); }
};
struct Ring {
  static constexpr int at(const Drawing& d, int u, int v) {
    return hollow(Disc::round(d.radius, u, v), Disc::round(d.radius * 9 / 16, u, v));
  }
};
struct Square {
  static constexpr int far(int u, int v) { return std::max(std::abs(u), std::abs(v)); }
  static constexpr int at(const Drawing& d, int u, int v) { return inside(d.radius * 7 / 8 - far(u, v)); }
};
struct Frame {
  static constexpr int at(const Drawing& d, int u, int v) {
    return hollow(inside(d.radius * 7 / 8 - Square::far(u, v)), inside(d.radius / 2 - Square::far(u, v)));
  }
};
struct Triangle {
  static constexpr int at(const Drawing& d, int u, int v) {  // 222 / 256 is the cosine of 30 degrees
    return inside(d.radius * 5 / 8 - std::max(v, (222 * std::abs(u) - 128 * v) / 256));
  }
};
struct Cross {
  static constexpr int at(const Drawing& d, int u, int v) {
    const int thick = d.radius / 4;
    return inside(std::max(std::min(d.radius - std::abs(u), thick - std::abs(v)),
                           std::min(d.radius - std::abs(v), thick - std::abs(u))));
  }
};
struct Stripes {
  static constexpr int at(const Drawing& d, int u, int) {
    return clamp_coverage(2 * (wave(d, u) - 256) + kFull / 2);
  }
};
struct Checkers {
  static constexpr int at(const Drawing& d, int u, int v) {
    return clamp_coverage((wave(d, u) - 256) * (wave(d, v) - 256) / 64 + kFull / 2);
  }
};
struct Dots {
  static constexpr int at(const Drawing& d, int u, int v) {
    return clamp_coverage((240 * 240 - wave(d, u) * wave(d, u) - wave(d, v) * wave(d, v)) / 128 + kFull / 2);
  }
};
struct Gradient {
  static constexpr int at(const Drawing&, int u, int) { return clamp_coverage(u + kFull / 2); }
};

template <typename Class>
void draw(const Drawing& d, std::uint8_t* out) {
  std::array<int, kRow> background, contrast, coverage;
  for (std::size_t i = 0; i < kRow; ++i) {
    background[i] = d.background[i % 3];
    contrast[i] = d.contrast[i % 3];
  }
  for (int y = 0; y < kImageSide; ++y, out += kRow) {
    const int dy = y * kUnit + kUnit / 2 - d.center_y;
    std::array<int, kImageSide> row;
    for (int x = 0; x < kImageSide; ++x) {
      const int dx = x * kUnit + kUnit / 2 - d.center_x;
      row[static_cast<std::size_t>(x)] =
          Class::at(d, (dx * d.cosine + dy * d.sine) / 64, (dy * d.cosine - dx * d.sine) / 64);
    }
    for (std::size_t i = 0; i < kRow; ++i) {
      coverage[i] = row[i / 3];
    }
    for (std::size_t i = 0; i < kRow; ++i) {
      std::uint32_t noise =
          (static_cast<std::uint32_t>(y) * kRow + static_cast<std::uint32_t>(i)) * 0x9E3779B1u + d.noise;
      noise = (noise ^ noise >> 15) * 0x85EBCA77u;
      noise ^= noise >> 13;
      const int value =
          background[i] + coverage[i] * contrast[i] / kFull + static_cast<int>(noise >> 27) - 16;
      out[i] = static_cast<std::uint8_t>(std::clamp(value, 0, 255));
    }
  }
}

constexpr std::array<void (*)(const Drawing&, std::uint8_t*), 10> kDraw = {
    draw<Disc>,  draw<Ring>,    draw<Square>,   draw<Frame>, draw<Triangle>,
    draw<Cross>, draw<Stripes>, draw<Checkers>, draw<Dots>,  draw<Gradient>};

class Synthetic final : public Dataset {
 public:
  Synthetic(std::int64_t size, bool train)
      : size_(size),
        images_(std::make_unique_for_overwrite<std::uint8_t[]>(static_cast<std::size_t>(size) * kBytes)) {
    const std::uint64_t key = mix(kStream, train ? 0 : 1);
    for (std::int64_t i = 0; i < size; ++i) {
      kDraw[static_cast<std::size_t>(label(i))](drawing(i, key), image(i));
    }
  }

  std::int64_t size() const override { return size_; }
  const DatasetInfo& info() const override { return info_; }
  Sample read(std::int64_t index, std::vector<std::byte>&) const override {
    return {std::as_bytes(std::span(image(index), kBytes)),
            Encoding::raw_hwc,
            kImageSide,
            kImageSide,
            3,
            label(index)};
  }
  std::int64_t label(std::int64_t index) const override {
    return index % static_cast<std::int64_t>(kDraw.size());
  }
  std::string describe(std::int64_t index) const override { return fmt::format("synthetic image {}", index); }

 private:
  void add_known(Hash& hash) const override { add_labels(hash); }

  std::uint8_t* image(std::int64_t index) const {
    return images_.get() + static_cast<std::size_t>(index) * kBytes;
  }

  std::int64_t size_;
  std::unique_ptr<std::uint8_t[]> images_;  // height x width x channels each
  DatasetInfo info_{.height = kImageSide, .width = kImageSide, .channels = 3, .classes = kShapes};
};

}  // namespace

std::unique_ptr<Dataset> open_synthetic(const std::string& samples, const OpenOptions& options) {
  std::int64_t size = 0;
  const auto [end, error] = std::from_chars(samples.data(), samples.data() + samples.size(), size);
  constexpr std::int64_t kMost = 100'000'000;  // 300 GB
  if (error != std::errc() || end != samples.data() + samples.size() || size < 1 || size > kMost) {
    throw InputError("synthetic: '{}' is no number of images; expected 1 to {}", samples, kMost);
  }
  return std::make_unique<Synthetic>(size, options.train);
}

}  // namespace millrace
