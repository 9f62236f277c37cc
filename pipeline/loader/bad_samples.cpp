#include "pipeline/loader/bad_samples.h"

#include <algorithm>
#include <cstdio>

#include "base/error.h"
#include "base/tell.h"

namespace millrace {

std::string_view name_of(BadSamples what) {
  constexpr std::string_view kNames[] = {"fail", "mask", "substitute"};
  return kNames[static_cast<std::size_t>(what)];
}

BadSamples parse_bad_samples(std::string_view name) {
  for (const BadSamples what : {BadSamples::fail, BadSamples::mask, BadSamples::substitute}) {
    if (name == name_of(what)) {
      return what;
    }
  }
  throw InputError("bad samples: got '{}', expected fail, mask or substitute", name);
}

BadSampleReport print_bad_samples() {
  constexpr int kMost = 10;
  return [printed = 0](const BadSample& bad) mutable {
    if (printed == kMost) {
      return;
    }
    const std::string instead =
        bad.substitute < 0 ? "masked" : fmt::format("sample {} comes instead", bad.substitute);
    tell(fmt::format("bad sample {} in epoch {} ({}): {}", bad.id, bad.epoch, instead, bad.reason));
    if (++printed == kMost) {
      tell("further bad samples are counted and not printed");
    }
  };
}

void check_bad_rate(std::int64_t bad, std::int64_t samples, double max_rate, const std::string& named) {
  if (bad > kAlwaysAllowedBad && static_cast<double>(bad) > max_rate * static_cast<double>(samples)) {
    throw InputError(
        "loader: {} of the first {} samples are bad, more than the rate of {} that is allowed; repair the "
        "data or raise the rate; {}",
        bad, samples, max_rate, named);
  }
}

void BadSampleCount::add(std::int64_t samples, std::span<const BadSample> bad) {
  constexpr std::size_t kNamed = 3;
  samples_ += samples;
  for (const BadSample& each : bad) {
    ++count_;
    if (first_.size() < kNamed) {
      first_.push_back(each.reason);
    }
    if (report_) {
      report_(each);
    }
  }
  if (bad.empty()) {
    return;
  }
  std::string named;
  for (const std::string& reason : first_) {
    named += (named.empty() ? "the first ones: " : "; ") + reason;
  }
  check_bad_rate(count_, samples_, max_rate_, named);
}

}  // namespace millrace
