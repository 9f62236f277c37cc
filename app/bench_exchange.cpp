#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <fmt/core.h>
#include <thread>

#include "app/commands.h"
#include "app/options.h"
#include "app/step_forecast.h"
#include "distributed/group/join.h"
#include "distributed/group/process_group.h"

namespace millrace::app {

namespace {

using Clock = std::chrono::steady_clock;

struct BenchExchangeOptions {
  std::string engine = "auto";
  SumOrder sum_order = SumOrder::tree;
  int repeats = 15;
  double sleep_milliseconds = 30;
  double gradient_megabytes = 8;
  double timeout = 60;
};

/// The median of `repeats` runs, after one that does not count.
template <typename Body>
double median_seconds(int repeats, Body&& body) {
  std::vector<double> seconds;
  for (int i = 0; i <= repeats; ++i) {
    const auto start = Clock::now();
    body();
    if (i > 0) {
      seconds.push_back(std::chrono::duration<double>(Clock::now() - start).count());
    }
  }
  std::ranges::nth_element(seconds, seconds.begin() + repeats / 2);
  return seconds[static_cast<std::size_t>(repeats / 2)];
}

double sum_seconds(Communicator& group, double bytes, int repeats) {
  Tensor tensor = zeros({static_cast<std::int64_t>(bytes / 4)});
  group.barrier();
  return median_seconds(repeats, [&] { group.all_reduce(tensor); });
}

/// A step whose computing is a sleep, so that any number of ranks fits on this machine.
double step_seconds(Communicator& group, const StepCost& cost, int repeats) {
  const auto sleep = [](double seconds) {
    std::this_thread::sleep_for(std::chrono::duration<double>(seconds));
  };
  double all = 0;
  std::vector<Tensor> buckets;
  for (const double bytes : cost.bucket_bytes) {
    buckets.push_back(zeros({static_cast<std::int64_t>(bytes / 4)}));
    all += bytes;
  }
  group.barrier();
  return median_seconds(repeats, [&] {
    sleep(cost.forward);
    for (std::size_t i = 0; i < buckets.size(); ++i) {
      sleep(cost.backward * cost.bucket_bytes[i] / all);
      group.all_reduce(buckets[i]);
    }
  });
}

void bench_exchange(const BenchExchangeOptions& o) {
  ProcessGroup processes(find_place(), {.engine = parse_engine(o.engine),
                                        .sum_order = o.sum_order,
                                        .timeout = std::chrono::duration<double>(o.timeout)});
  if (processes.size() == 1) {
    throw InputError(
        "bench exchange: there is one process; start several, as in millrace launch -n 2 -- bench exchange");
  }
  Communicator& group = *processes.communicator();
  const bool speaks = group.rank() == 0;
  std::vector<ExchangeTime> times;
  for (double bytes = 4096; bytes <= 32 << 20; bytes *= 8) {
    times.push_back({bytes, sum_seconds(group, bytes, o.repeats)});
    if (speaks) {
      fmt::print("sum of {:>10.0f} bytes over {} processes: {:>9.3f} ms\n", bytes, group.size(),
                 1e3 * times.back().seconds);
    }
  }
  const Exchange exchange = o.sum_order == SumOrder::tree ? Exchange::tree : Exchange::ring;
  const Link link = fit_link(times, group.size(), exchange);
  const Cluster cluster{
      .ranks = group.size(), .ranks_per_host = group.size(), .inside = link, .between = link};
  const double compute = o.sleep_milliseconds / 1e3;
  const StepCost cost{.forward = compute / 3,
                      .backward = compute * 2 / 3,
                      .bucket_bytes = std::vector<double>(4, o.gradient_megabytes / 4 * 1e6),
                      .overlapped = false};
  const double measured = step_seconds(group, cost, o.repeats);
  if (speaks) {
    const double forecast = forecast_step(cost, cluster, exchange).total();
    fmt::print("--link {:.3g}:{:.3g}\n", link.bytes_per_second / 1e9, 1e6 * link.latency);
    fmt::print(
        "a step that sleeps {:g} ms and sums {:g} MB in 4 buckets: {:.3f} ms, forecast {:.3f} ms ({:+.1f} "
        "%)\n",
        o.sleep_milliseconds, o.gradient_megabytes, 1e3 * measured, 1e3 * forecast,
        100 * (forecast / measured - 1));
  }
}

}  // namespace

void add_bench_exchange(CLI::App& bench) {
  auto options = std::make_shared<BenchExchangeOptions>();
  BenchExchangeOptions& o = *options;
  CLI::App& command =
      *bench.add_subcommand("exchange", "Time sums over processes, for the links of millrace plan");
  command.add_option("--engine", o.engine, "auto, gloo or mpi");
  add_sum_order(command, o.sum_order, "tree, or engine for the engine's own sum");
  command.add_option("--repeats", o.repeats, "Timed repeats")->check(whole_number(1));
  command.add_option("--sleep-ms", o.sleep_milliseconds, "Computing of a step")->check(in_range(0, 1e6));
  command.add_option("--gradient-mb", o.gradient_megabytes, "To be summed in a step")
      ->check(in_range(0.001, 1e4));
  command.add_option("--timeout", o.timeout, "Seconds to wait for the other processes")
      ->check(in_range(0.1, 1e6));
  command.callback([options] { bench_exchange(*options); });
}

}  // namespace millrace::app
