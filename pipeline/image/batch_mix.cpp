#include "pipeline/image/batch_mix.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <numbers>

#include "base/error.h"

namespace millrace {
namespace {

double parse_alpha(std::string_view word) {
  constexpr double kMost = 1000;
  const std::string_view text = word.substr(word.find(':') + 1);
  double alpha = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), alpha);
  if (error != std::errc{} || end != text.data() + text.size() || !(alpha > 0 && alpha <= kMost)) {
    throw InputError("transforms: '{}' needs a number above 0 and up to {}, got '{}'", word, kMost, text);
  }
  return alpha;
}

/// In (0, 1), so that its logarithm is finite.
double open_uniform(SampleRandom& random) { return static_cast<double>(random.uniform()) + 0x1.0p-25; }

double normal(SampleRandom& random) {
  const double radius = std::sqrt(-2 * std::log(open_uniform(random)));
  return radius * std::cos(2 * std::numbers::pi * static_cast<double>(random.uniform()));
}

/// The logarithm of a draw from Gamma(alpha, 1), which may be too small for a double. Marsaglia and Tsang, "A
/// simple method for generating gamma variables", ACM TOMS 2000; alpha + 1 is reduced to alpha.
double log_gamma_draw(double alpha, SampleRandom& random) {
  const double d = alpha + 1 - 1.0 / 3, c = 1 / std::sqrt(9 * d);
  double log_draw = std::log(d);
  for (int attempt = 0; attempt < 64; ++attempt) {  // each succeeds with more than 95 %
    const double x = normal(random), u = open_uniform(random), root = 1 + c * x;
    if (root <= 0) {
      continue;
    }
    const double v = root * root * root;
    if (std::log(u) < x * x / 2 + d - d * v + d * std::log(v)) {
      log_draw = std::log(d * v);
      break;
    }
  }
  return log_draw + std::log(open_uniform(random)) / alpha;
}

double beta_draw(double alpha, SampleRandom& random) {
  const double a = log_gamma_draw(alpha, random), b = log_gamma_draw(alpha, random);
  return 1 / (1 + std::exp(b - a));
}

template <typename T>
T to_pixel(float value) {
  if constexpr (std::is_same_v<T, std::uint8_t>) {
    return static_cast<T>(std::lround(value));
  } else {
    return static_cast<T>(value);
  }
}

template <typename T>
void blend(T* a, T* b, std::int64_t count, float lambda) {
  const float rest = 1 - lambda;
  for (std::int64_t i = 0; i < count; ++i) {
    const auto x = static_cast<float>(a[i]), y = static_cast<float>(b[i]);
    a[i] = to_pixel<T>(lambda * x + rest * y);
    b[i] = to_pixel<T>(lambda * y + rest * x);
  }
}

void write_soft_labels(Slab& slab, float lambda) {
  const auto* labels = slab.field("label").data<std::int64_t>();
  const Tensor& soft = slab.field("soft_label");
  const std::int64_t classes = soft.size(1);
  auto* row = soft.data<float>();
  std::fill(row, row + soft.numel(), 0.0f);
  for (std::int64_t i = 0; i < slab.valid; ++i, row += classes) {
    row[labels[i]] += lambda;
    row[labels[slab.valid - 1 - i]] += 1 - lambda;
  }
}

}  // namespace

BatchMix BatchMix::take_from(std::string& transforms) {
  BatchMix mix;
  std::string others;
  for (std::string_view rest = transforms; !rest.empty();) {
    std::string_view word = rest.substr(0, rest.find(','));
    rest.remove_prefix(std::min(word.size() + 1, rest.size()));
    word.remove_prefix(std::min(word.find_first_not_of(' '), word.size()));
    word = word.substr(0, word.find_last_not_of(' ') + 1);
    if (word.starts_with("mixup:")) {
      mix.mixup_ = parse_alpha(word);
    } else if (word.starts_with("cutmix:")) {
      mix.cutmix_ = parse_alpha(word);
    } else {
      others.append(others.empty() ? "" : ",").append(word);
    }
  }
  transforms = others;
  return mix;
}

BatchMix::Draw BatchMix::draw(SampleRandom random, Size2 image) const {
  const bool either = mixup_ > 0 && cutmix_ > 0;
  Draw draw;
  draw.cut = either ? random.below(2) == 0 : cutmix_ > 0;
  draw.lambda = beta_draw(draw.cut ? cutmix_ : mixup_, random);
  if (!draw.cut) {
    return draw;
  }
  const double side = std::sqrt(1 - draw.lambda);
  const auto part = [&](std::int64_t size, std::int64_t& begin, std::int64_t& length) {
    const auto half = static_cast<std::int64_t>(static_cast<double>(size) * side) / 2;
    const std::int64_t center = random.below(size);
    begin = std::max<std::int64_t>(center - half, 0);
    length = std::min(center + half, size) - begin;
  };
  part(image.height, draw.box.top, draw.box.height);
  part(image.width, draw.box.left, draw.box.width);
  draw.lambda = 1 - static_cast<double>(draw.box.height * draw.box.width) /
                        static_cast<double>(image.height * image.width);
  return draw;
}

void BatchMix::apply(Slab& slab, const Draw& draw) {
  const Tensor& images = slab.field("image");
  const std::int64_t channels = images.size(1), height = images.size(2), width = images.size(3);
  const std::int64_t count = channels * height * width, row = width * channels;
  const Rectangle& box = draw.box;
  visit(images.dtype(), [&]<typename T>() {
    T* pixels = images.data<T>();
    for (std::int64_t i = 0; i < slab.valid / 2; ++i) {
      T *a = pixels + i * count, *b = pixels + (slab.valid - 1 - i) * count;
      if (!draw.cut) {
        blend(a, b, count, static_cast<float>(draw.lambda));
        continue;
      }
      for (std::int64_t y = box.top; y < box.top + box.height; ++y) {
        const std::int64_t begin = y * row + box.left * channels;
        std::swap_ranges(a + begin, a + begin + box.width * channels, b + begin);
      }
    }
  });
  write_soft_labels(slab, static_cast<float>(draw.lambda));
}

}  // namespace millrace
