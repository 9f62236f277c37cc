#include <CLI/CLI.hpp>
#include <algorithm>
#include <fmt/format.h>

#include "app/commands.h"
#include "app/options.h"
#include "app/output/measure.h"
#include "app/step_forecast.h"
#include "base/error.h"
#include "distributed/buckets.h"
#include "nn/models/models.h"
#include "nn/work.h"

namespace millrace::app {

namespace {

struct PlanOptions {
  std::string model = "airbench94";
  int gpus = 8;
  int gpus_per_host = 8;
  std::string link = "nvlink";
  std::string link_between_hosts = "infiniband";
  std::int64_t batch_size = 1024;
  int image_size = 32;
  double step_milliseconds = 0;
  double teraflops = 100;
};

/// As `Buckets` cuts the gradient between GPUs; the last one is what is left.
std::vector<double> bucket_bytes(std::int64_t gradient_bytes) {
  const std::int64_t size = overlapping_bucket_bytes(gradient_bytes);
  std::vector<double> buckets;
  for (std::int64_t left = gradient_bytes; left > 0; left -= size) {
    buckets.push_back(static_cast<double>(std::min(size, left)));
  }
  return buckets;
}

StepCost step_cost(const PlanOptions& o, const nn::Work& work) {
  // Backward is two products for each one forward.
  const double operations = 3 * work.forward_operations * static_cast<double>(o.batch_size);
  const double compute =
      o.step_milliseconds > 0 ? o.step_milliseconds / 1e3 : operations / (o.teraflops * 1e12);
  return {.forward = compute / 3,
          .backward = compute * 2 / 3,
          .update = 0,
          .bucket_bytes = bucket_bytes(4 * work.parameters)};
}

void print_row(const PlanOptions& o, const StepCost& cost, Cluster cluster, int gpus) {
  cluster.ranks = gpus;
  fmt::print("{:>5}", gpus);
  for (const Exchange exchange : {Exchange::ring, Exchange::tree}) {
    const StepForecast forecast = forecast_step(cost, cluster, exchange);
    fmt::print(" {:>9.3f} {:>9.3f} {:>14} {:>6.1f} %", 1e3 * forecast.total(), 1e3 * forecast.exchange,
               with_commas(gpus * static_cast<double>(o.batch_size) / forecast.total()),
               100 * forecast.efficiency());
  }
  fmt::print("\n");
}

void plan(const PlanOptions& o) {
  const auto net = nn::make_model(o.model, {.height = o.image_size, .width = o.image_size});
  const nn::Work work = nn::measure_work(*net, {3, o.image_size, o.image_size});
  const StepCost cost = step_cost(o, work);
  const Cluster cluster{.ranks = o.gpus,
                        .ranks_per_host = o.gpus_per_host,
                        .inside = Link::parse(o.link),
                        .between = Link::parse(o.link_between_hosts)};
  fmt::print(
      "{}: {} parameters, {:.1f} MB of gradient in {} buckets; {} images of {}x{} a GPU and step, {:.0f} "
      "GFLOP\n",
      o.model, with_commas(static_cast<double>(work.parameters)), 4e-6 * static_cast<double>(work.parameters),
      cost.bucket_bytes.size(), o.batch_size, o.image_size, o.image_size,
      3e-9 * work.forward_operations * static_cast<double>(o.batch_size));
  fmt::print(
      "computing: {:.3f} ms a step, {}\n", 1e3 * (cost.forward + cost.backward),
      o.step_milliseconds > 0
          ? "as given"
          : fmt::format("assuming {:g} TFLOP/s; measure it with millrace bench train and give --step-ms",
                        o.teraflops));
  fmt::print("links: {} among the {} GPUs of a host{}; see docs/scaling.md\n\n", o.link,
             std::min(o.gpus, o.gpus_per_host),
             o.gpus > o.gpus_per_host ? fmt::format(", {} between hosts", o.link_between_hosts) : "");
  fmt::print("{:>5} {:^43} {:^43}\n", "", "sum around a ring (--sum-order engine)",
             "sum on the tree (--sum-order tree)");
  fmt::print("{:>5}", "GPUs");
  for (int i = 0; i < 2; ++i) {
    fmt::print(" {:>9} {:>9} {:>14} {:>8}", "ms/step", "exchange", "images/s", "speed");
  }
  fmt::print("\n");
  for (int gpus = 1; gpus < o.gpus; gpus *= 2) {
    print_row(o, cost, cluster, gpus);
  }
  print_row(o, cost, cluster, o.gpus);
}

}  // namespace

void add_plan(CLI::App& app) {
  auto options = std::make_shared<PlanOptions>();
  PlanOptions& o = *options;
  CLI::App& command =
      *app.add_subcommand("plan", "Forecast how training speed grows with the number of GPUs");
  command.add_option("--model", o.model, fmt::format("{}", fmt::join(nn::model_names(), ", ")));
  command.add_option("--gpus", o.gpus, "All of them")->check(whole_number(1, 65536));
  command.add_option("--gpus-per-host", o.gpus_per_host, "On one machine")->check(whole_number(1, 1024));
  command.add_option("--link", o.link,
                     "Among the GPUs of a host: nvlink, pcie, infiniband, ethernet, loopback or GB/s:us");
  command.add_option("--link-between-hosts", o.link_between_hosts, "For each GPU, likewise");
  command.add_option("--batch-size", o.batch_size, "Images a step on each GPU")->check(whole_number(1));
  command.add_option("--image-size", o.image_size, "Height and width")->check(whole_number(1, 4096));
  command.add_option("--step-ms", o.step_milliseconds, "A step on one GPU, as bench train measures it")
      ->check(in_range(0, 1e9));
  command.add_option("--tflops", o.teraflops, "Assumed for each GPU where --step-ms is not given")
      ->check(in_range(1e-6, 1e9));
  command.callback([options] { plan(*options); });
}

}  // namespace millrace::app
