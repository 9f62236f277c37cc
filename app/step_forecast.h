#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace millrace {

/// How fast one rank sends to another, in one direction while it receives in the other.
struct Link {
  std::string name;
  double bytes_per_second = 0;
  double latency = 0;  ///< Seconds from one rank to the next for a message of no size.

  /// "nvlink", "pcie", "infiniband", "ethernet", "loopback", or "GIGABYTES_PER_SECOND:MICROSECONDS".
  /// @throws InputError that lists them.
  static Link parse(std::string_view text);
};

/// Ranks on hosts: `inside` links those of one host, `between` the hosts, once for each rank.
struct Cluster {
  int ranks = 1;
  int ranks_per_host = 1;
  Link inside;
  Link between;
};

/// How gradients are summed: around a ring, as NCCL does, or on the fixed tree over ranks (each rank sums one
/// slice of all, then slices go back).
enum class Exchange : std::uint8_t { ring, tree };

/// One step of one rank, in seconds, and its gradient, in buckets in the order in which they become ready.
struct StepCost {
  double forward = 0;
  double backward = 0;
  double update = 0;
  std::vector<double> bucket_bytes;
  /// Buckets are summed beside the backward pass, as on GPUs; a CPU core does one after the other.
  bool overlapped = true;
};

/// What a step takes, in seconds.
struct StepForecast {
  double compute = 0;   ///< Forward, backward and update.
  double exchange = 0;  ///< All buckets, one after the other.
  double waiting = 0;   ///< The part of the exchange that the backward pass does not cover.
  double total() const { return compute + waiting; }
  /// Of the speed that as many ranks would have if exchange cost nothing.
  double efficiency() const { return compute / total(); }
};

/// How long one all-reduce of `bytes` takes. With several hosts a ring first sums inside each host, then each
/// rank its part between the hosts, then it goes back inside.
double exchange_time(double bytes, const Cluster& cluster, Exchange exchange);

/// A measured sum.
struct ExchangeTime {
  double bytes = 0, seconds = 0;
};

/// The link that explains sums over `ranks` of one host: its latency from the smallest, its bandwidth from
/// the largest.
Link fit_link(std::span<const ExchangeTime> times, int ranks, Exchange exchange);

/// A bucket becomes ready when its share of the backward pass is done, and goes out when the one before has;
/// the update follows the last.
StepForecast forecast_step(const StepCost& cost, const Cluster& cluster, Exchange exchange);

}  // namespace millrace
