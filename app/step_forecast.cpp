#include "app/step_forecast.h"

#include <algorithm>
#include <charconv>
#include <numeric>

#include "base/error.h"

namespace millrace {

namespace {

// Bytes a second of one direction of one rank, and seconds a message. NVLink 4 (H100: 18 links of 25 GB/s),
// PCIe 5.0 x16, NDR InfiniBand (400 Gb/s a rank) and 100 Gb/s Ethernet by their data sheets, at the 80 % of
// it that large messages reach; loopback as measured (docs/scaling.md).
constexpr double kReached = 0.8;
const Link kLinks[] = {{"nvlink", kReached * 450e9, 3e-6},
                       {"pcie", kReached * 63e9, 5e-6},
                       {"infiniband", kReached * 50e9, 8e-6},
                       {"ethernet", kReached * 12.5e9, 30e-6},
                       {"loopback", 2.0e9, 60e-6}};

bool read_number(std::string_view text, double& value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc{} && end == text.data() + text.size();
}

/// How often the latency is waited for. A ring passes slices on, twice around; on the tree slices travel at
/// once, there and back.
int stages(int ranks, Exchange exchange) {
  if (ranks == 1) {
    return 0;
  }
  return exchange == Exchange::ring ? 2 * (ranks - 1) : 2;
}

/// Of the bytes, how many each rank sends, and as many receives, in the one and in the other exchange.
double share_sent(int ranks) { return 2.0 * (ranks - 1) / ranks; }

}  // namespace

Link Link::parse(std::string_view text) {
  for (const Link& link : kLinks) {
    if (link.name == text) {
      return link;
    }
  }
  const std::size_t colon = text.find(':');
  double gigabytes = 0, microseconds = 0;
  if (colon == std::string_view::npos || !read_number(text.substr(0, colon), gigabytes) ||
      !read_number(text.substr(colon + 1), microseconds) || !(gigabytes > 0) || !(microseconds >= 0)) {
    throw InputError(
        "link: got '{}', expected nvlink, pcie, infiniband, ethernet, loopback, or GB/s and microseconds as "
        "in 12.5:30",
        text);
  }
  return {std::string(text), gigabytes * 1e9, microseconds * 1e-6};
}

double exchange_time(double bytes, const Cluster& cluster, Exchange exchange) {
  const int inside = std::min(cluster.ranks, cluster.ranks_per_host);
  const int hosts = (cluster.ranks + inside - 1) / inside;
  // On the tree a rank also reaches those of other hosts itself, with a slice each.
  const double between_bytes =
      exchange == Exchange::ring
          ? bytes / inside * share_sent(hosts)
          : bytes * (share_sent(cluster.ranks) - share_sent(inside) * inside / cluster.ranks);
  const double inside_bytes = exchange == Exchange::ring
                                  ? bytes * share_sent(inside)
                                  : bytes * share_sent(inside) * inside / cluster.ranks;
  return stages(inside, exchange) * cluster.inside.latency + inside_bytes / cluster.inside.bytes_per_second +
         stages(hosts, exchange) * cluster.between.latency + between_bytes / cluster.between.bytes_per_second;
}

Link fit_link(std::span<const ExchangeTime> times, int ranks, Exchange exchange) {
  const auto [small, large] = std::ranges::minmax(times, {}, &ExchangeTime::bytes);
  const double slope = std::max(1e-15, (large.seconds - small.seconds) / (large.bytes - small.bytes));
  return {.name = "measured",
          .bytes_per_second = share_sent(ranks) / slope,
          .latency = std::max(0.0, small.seconds - slope * small.bytes) / stages(ranks, exchange)};
}

StepForecast forecast_step(const StepCost& cost, const Cluster& cluster, Exchange exchange) {
  const double all = std::accumulate(cost.bucket_bytes.begin(), cost.bucket_bytes.end(), 0.0);
  const double backward_end = cost.forward + cost.backward;
  StepForecast forecast{.compute = backward_end + cost.update};
  double ready_bytes = 0, free_at = 0;
  for (const double bytes : cost.bucket_bytes) {
    ready_bytes += bytes;
    const double delay = cost.overlapped ? 0 : forecast.exchange;
    const double ready = cost.forward + cost.backward * ready_bytes / all + delay;
    const double time = exchange_time(bytes, cluster, exchange);
    free_at = std::max(free_at, ready) + time;
    forecast.exchange += time;
  }
  forecast.waiting = std::max(0.0, free_at - backward_end);
  return forecast;
}

}  // namespace millrace
