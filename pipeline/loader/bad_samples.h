#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace millrace {

/// What becomes of a sample that cannot be read or decoded. A failing machine is an error in any case, and so
/// are wrong transforms.
enum class BadSamples : std::uint8_t {
  fail,       ///< `next` throws.
  mask,       ///< Its place is not valid: the batch's valid samples move up, and the last place is zeros.
  substitute  ///< Another sample, a function of (seed, epoch, id), takes its place; after 4 bad ones: mask.
};

std::string_view name_of(BadSamples what);
/// @throws InputError that lists them.
BadSamples parse_bad_samples(std::string_view name);

/// A sample that could not be read or decoded, and what became of its place.
struct BadSample {
  std::int64_t epoch = 0;
  std::int64_t id = 0;
  std::int64_t substitute = -1;  ///< The sample that came instead; -1: none, the place is masked.
  std::string reason;            ///< Names the file and what is wrong with it.
  std::int64_t place = 0;        ///< In its shard, as planned.
};

using BadSampleReport = std::function<void(const BadSample&)>;

/// Writes the first 10 to the standard error, one line each; the rest is only counted.
BadSampleReport print_bad_samples();

/// So many bad samples are always allowed, whatever the rate.
inline constexpr std::int64_t kAlwaysAllowedBad = 10;

/// @throws InputError when `bad` of `samples` are more than a share of `max_rate`; `named` says more of them.
void check_bad_rate(std::int64_t bad, std::int64_t samples, double max_rate, const std::string& named);

/// Counts and reports the bad samples that a consumer comes upon, and ends a run that has too many.
class BadSampleCount {
 public:
  BadSampleCount(double max_rate, BadSampleReport report) : max_rate_(max_rate), report_(std::move(report)) {}
  /// `samples` more were taken, `bad` among them. @throws as check_bad_rate does; names the first ones.
  void add(std::int64_t samples, std::span<const BadSample> bad);
  std::int64_t count() const { return count_; }
  std::int64_t samples() const { return samples_; }

 private:
  double max_rate_;
  BadSampleReport report_;
  std::int64_t samples_ = 0, count_ = 0;
  std::vector<std::string> first_;
};

}  // namespace millrace
