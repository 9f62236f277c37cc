#include "app/options.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cctype>
#include <charconv>
#include <fmt/format.h>
#include <iterator>
#include <optional>
#include <vector>

#include "app/interruption.h"
#include "distributed/rendezvous/rendezvous.h"
#include "nn/optimizers/kind.h"
#include "pipeline/training/step_check.h"
#include "tensor/gpu/arithmetic.h"

namespace millrace::app {

namespace {

/// The whole of `text` as a number, or nothing.
template <typename Number>
std::optional<Number> read_number(std::string_view text) {
  Number value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) {
    return std::nullopt;
  }
  return value;
}

}  // namespace

CLI::Validator whole_number(std::int64_t low, std::int64_t high) {
  return {[low, high](std::string& text) {
            const auto value = read_number<std::int64_t>(text);
            if (value && *value >= low && *value <= high) {
              return std::string();
            }
            return fmt::format("got {}, expected a whole number from {} to {}", text, low, high);
          },
          fmt::format("{} to {}", low, high)};
}

CLI::Validator in_range(double low, double high) {
  return {[low, high](std::string& text) {
            const auto value = read_number<double>(text);
            if (value && *value >= low && *value < high) {
              return std::string();
            }
            return fmt::format("got {}, expected a number of at least {} and less than {}", text, low, high);
          },
          fmt::format("[{}, {})", low, high)};
}

void add_sum_order(CLI::App& command, SumOrder& sum_order, const std::string& description) {
  command
      .add_option_function<std::string>(
          "--sum-order,--reduction",
          [&sum_order](const std::string& name) {
            sum_order = name == "tree" ? SumOrder::tree : SumOrder::engine;
          },
          description)
      ->check(CLI::IsMember({"tree", "engine"}));
}

void ComputeOptions::add_to(CLI::App& command, bool with_shards) {
  command.add_option("--device", device, "cpu, cuda (every GPU) or cuda:N");
  command.add_option("--dtype", dtype, "Type of activations: f32, bf16 or, on GPUs, f16")
      ->check(CLI::IsMember({"f32", "bf16", "f16"}));
  command.add_option("--replicas", replicas, "Copies of the network, one a core or GPU (0: as many as fit)")
      ->check(whole_number(0));
  if (with_shards) {
    command
        .add_option("--shards", shards,
                    "Pieces of a batch; equal shards give equal bits (0: as many as replicas)")
        ->check(whole_number(0));
    add_sum_order(
        command, sum_order,
        "How gradients are summed: tree (the same bits on any number of replicas) or engine (the order of "
        "NCCL, Gloo or MPI)");
    command.add_flag("--replay,!--no-replay", replay,
                     "On CPUs: small steps are recorded once and replayed, with the same bits (the default)");
  }
  command.add_flag("--tf32", tf32, "f32 on a GPU's tensor cores, with 10 bits of mantissa");
  command.add_option("--threads", threads, "Loader workers (0: this process's cores)")
      ->check(whole_number(0));
}

TrainerOptions ComputeOptions::resolve(std::int64_t batch_size, std::uint64_t seed,
                                       std::shared_ptr<ProcessGroup> processes) const {
  TrainerOptions options;
  if (processes) {
    options.timeout = processes->rendezvous().timeout();
  }
  options.processes = std::move(processes);
  options.replicas = replicas;
  options.shards = shards;
  options.batch_size = batch_size;
  options.devices = parse_devices(device);
  options.dtype = dtype == "bf16" ? DType::bf16 : dtype == "f16" ? DType::f16 : DType::f32;
  options.seed = seed;
  options.replay = replay;
  options.sum_order = sum_order;
  options = millrace::resolve(std::move(options));
  if (tf32 && options.devices[0].is_cpu()) {
    throw InputError("--tf32: is for GPUs, --device is {}; leave it out", device);
  }
  set_gpu_arithmetic({.tf32 = tf32});  // for the whole process
  return options;
}

namespace {

/// As the command spells it.
std::string in_small_letters(std::string_view text) {
  std::string small;
  std::ranges::transform(text, std::back_inserter(small), [](unsigned char c) { return std::tolower(c); });
  return small;
}

/// Accepts the kinds of optimizers that step any parameter. Others are for recipes.
CLI::Validator optimizer_kind() {
  std::vector<std::string> names;
  for (const nn::OptimizerOptions& options : nn::optimizer_kinds()) {
    if (const nn::OptimizerFacts facts = nn::optimizer_facts(options); !facts.only_matrices) {
      names.push_back(in_small_letters(facts.kind));
    }
  }
  return {[names](std::string& text) {
            return std::ranges::find(names, text) != names.end()
                       ? std::string()
                       : fmt::format(
                             "got {}, expected one of {}; choose one of these, or a --recipe with one of its "
                             "own",
                             text, fmt::join(names, ", "));
          },
          fmt::format("{{{}}}", fmt::join(names, ","))};
}

}  // namespace

void OptimizerChoice::add_to(CLI::App& command) {
  command.add_option("--optimizer", kind, "With PyTorch's defaults, but sgd with a momentum of 0.9")
      ->check(optimizer_kind());
  command.add_option("--lr", learning_rate, "Learning rate")->check(in_range(0, 1e6));
  command.add_option("--momentum", momentum, "Momentum")->check(in_range(0, 1));
  command.add_option("--weight-decay", weight_decay, "Weight decay")->check(in_range(0, 1e6));
  command.add_flag_function(
      "--nesterov,!--no-nesterov", [this](std::int64_t count) { nesterov = count > 0; },
      "Nesterov's momentum");
}

void OptimizerChoice::apply(nn::OptimizerOptions& options) const {
  if (kind) {
    options = nn::find_optimizer(*kind);
    if (auto* sgd = std::get_if<nn::SgdOptions>(&options)) {
      sgd->momentum = 0.9;
    }
  }
  const auto lacking = [&](const auto& wanted, std::string_view option) {
    if (wanted) {
      throw InputError("{}: the optimizer is {}, which has none; leave it out", option,
                       nn::describe(options));
    }
  };
  std::visit(
      [&](auto& o) {
        o.learning_rate = learning_rate.value_or(o.learning_rate);
        if constexpr (requires { o.momentum; }) {
          o.momentum = momentum.value_or(o.momentum);
        } else {
          lacking(momentum, "--momentum");
        }
        if constexpr (requires { o.weight_decay; }) {
          o.weight_decay = weight_decay.value_or(o.weight_decay);
        } else {
          lacking(weight_decay, "--weight-decay");
        }
        if constexpr (requires { o.nesterov; }) {
          o.nesterov = nesterov.value_or(o.nesterov);
        } else {
          lacking(nesterov, "--nesterov");
        }
      },
      options);
}

void OrderChoice::add_to(CLI::App& command) {
  command.add_option("--order", order, "Of the samples: sequential, shuffled or blocks (for cold disks)")
      ->check(CLI::IsMember({"sequential", "shuffled", "blocks"}));
  command.add_option("--block-size", block_size, "Neighbours that --order blocks keeps together")
      ->check(whole_number(1));
  command.add_option("--window", window, "Blocks among which --order blocks mixes their samples")
      ->check(whole_number(1));
}

OrderOptions OrderChoice::resolve() const {
  OrderOptions options = {.kind = parse_order(order)};
  if (options.kind != Order::blocks && (block_size || window)) {
    throw InputError("{}: --order is {}, which has no blocks; add --order blocks or leave it out",
                     block_size ? "--block-size" : "--window", order);
  }
  options.block_size = block_size.value_or(options.block_size);
  options.window = window.value_or(options.window);
  return options;
}

void BadSampleChoice::add_to(CLI::App& command, bool with_substitutes) {
  std::vector<std::string> kinds{"fail", "mask"};
  if (with_substitutes) {
    kinds.emplace_back("substitute");
  }
  command
      .add_option("--bad-samples", what,
                  fmt::format("Samples that cannot be read: fail, mask (leave their places out){}",
                              with_substitutes ? " or substitute" : ""))
      ->check(CLI::IsMember(kinds));
  command.add_option("--max-bad-rate", max_rate, "The share of them at which it fails all the same")
      ->check(in_range(1e-9, 1.0000001));
}

void BadSampleChoice::apply(LoaderOptions& options) const {
  options.bad_samples = parse_bad_samples(what);
  if (max_rate && options.bad_samples == BadSamples::fail) {
    throw InputError(
        "--max-bad-rate: with --bad-samples fail the first one ends it; add --bad-samples mask or "
        "substitute");
  }
  options.max_bad_rate = max_rate.value_or(options.max_bad_rate);
}

void BadSampleChoice::apply_to_evaluation(LoaderOptions& options) const {
  apply(options);
  if (options.bad_samples == BadSamples::substitute) {
    options.bad_samples = BadSamples::mask;
  }
}

void ReadingChoice::add_to(CLI::App& command) {
  command
      .add_option("--reading", reading,
                  "map files into memory, or read them on threads of their own (network file systems, files "
                  "larger than memory)")
      ->check(CLI::IsMember({"map", "read"}));
  command
      .add_option(
          "--reader-threads", reader_threads,
          "Threads that wait for storage in place of the loader's workers (default: 4 with --reading read)")
      ->check(whole_number(0));
  command
      .add_option("--verify", verify,
                  "When to compare the checksums of records: at their first read, always, never")
      ->check(CLI::IsMember({"first", "always", "never"}));
}

OpenOptions ReadingChoice::open_options(bool train) const {
  return {.train = train,
          .reading = kind(),
          .verify = verify == "always"  ? Verify::always
                    : verify == "never" ? Verify::never
                                        : Verify::first_read};
}

LoaderOptions evaluation_loader(const ModelDescription& model, const TrainerOptions& trainer, int threads) {
  constexpr std::int64_t kBatchSize = 256;
  LoaderOptions options;
  options.batch_size = std::max<std::int64_t>(kBatchSize, trainer.shards);
  options.transforms = model.transforms;
  options.mean = model.mean;
  options.std = model.std;
  options.dtype = feed_type(trainer.devices[0], trainer.dtype, model.transforms);
  options.order.kind = Order::sequential;
  options.tail = Tail::pad;
  options.shards = trainer.shards;
  options.first_shard = local_shards(trainer).first;
  options.local_shards = local_shards(trainer).count;
  options.threads = threads;
  return options;
}

void check_first_training(const ModelDescription& model, const TrainerOptions& trainer) {
  millrace::check_first_training({.make_module = [&] { return nn::make_model(model.model, model.options()); },
                                  .channels = model.channels,
                                  .height = model.height,
                                  .width = model.width,
                                  .classes = static_cast<int>(model.classes.size())},
                                 trainer, [](const std::string& sentence) { show(sentence + "\n"); });
}

void check_fits(const Loader& loader, const ModelDescription& model, std::string_view data) {
  const Shape expected{model.channels, model.height, model.width};
  if (!(loader.image_shape() == expected)) {
    throw InputError("{}: images are {}, {} expects {}; use a --transform that makes them that size", data,
                     loader.image_shape(), model.model, expected);
  }
  const std::vector<std::string>& classes = loader.dataset().info().classes;
  if (classes != model.classes) {
    for (std::size_t i = 0; i < std::min(classes.size(), model.classes.size()); ++i) {
      if (classes[i] != model.classes[i]) {
        throw InputError("{}: class {} is {}, the model's is {}; expected the classes it was trained on",
                         data, i, classes[i], model.classes[i]);
      }
    }
    throw InputError("{}: has {} classes, the model has {}; expected the classes it was trained on", data,
                     classes.size(), model.classes.size());
  }
}

std::string counted(std::int64_t count, std::string_view noun) {
  return fmt::format("{} {}{}", count, noun, count == 1 ? "" : "s");
}

}  // namespace millrace::app
