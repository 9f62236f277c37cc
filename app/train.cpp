#include <CLI/CLI.hpp>
#include <chrono>
#include <fmt/format.h>
#include <limits>

#include "app/checkpoints.h"
#include "app/commands.h"
#include "app/interruption.h"
#include "app/options.h"
#include "app/output/measure.h"
#include "app/output/outputs.h"
#include "app/processes.h"
#include "app/report.h"
#include "app/training.h"
#include "base/cores.h"
#include "dataio/subset.h"
#include "nn/models/models.h"
#include "nn/test_time_augmentation.h"
#include "pipeline/training/recipe.h"
#include "tensor/config.h"

namespace millrace::app {

namespace {

namespace fs = std::filesystem;

struct TrainOptions {
  std::string data, test_data;
  Recipe recipe;
  bool augmentation_given = false;  ///< By --tta, not by the recipe.
  OptimizerChoice optimizer;
  double validation_fraction = 0;
  std::string test_transform;
  OrderChoice order;
  BadSampleChoice bad_samples;
  ReadingChoice reading;
  CheckpointChoice checkpoints;
  ComputeOptions compute;
  ProcessChoice processes;
  std::uint64_t seed = 0;
  std::int64_t log_every = 2000;
  OutputChoice outputs;
};

LoaderOptions training_loader(const TrainOptions& o, const TrainerOptions& trainer) {
  LoaderOptions options;
  o.recipe.apply(options);
  options.dtype = feed_type(trainer.devices[0], trainer.dtype, options.transforms);
  options.order = o.order.resolve();
  options.shards = trainer.shards;
  options.first_shard = local_shards(trainer).first;
  options.local_shards = local_shards(trainer).count;
  options.threads = o.compute.threads;
  options.reader_threads = o.reading.threads();
  if (!o.outputs.trace.empty()) {
    options.trace = std::make_shared<Trace>(o.outputs.trace);
  }
  options.seed = o.seed;
  o.bad_samples.apply(options);
  if (trainer.processes->size() > 1) {
    options.max_bad_rate = 1;  // the limit is that of all together
  }
  return options;
}

ModelDescription describe_model(const TrainOptions& o, const Loader& loader) {
  parse_transforms(o.test_transform);  // a mistake shows now, not when the saved model is used
  const Shape& image = loader.image_shape();
  return {
      .model = o.recipe.model,
      .classes = loader.dataset().info().classes,
      .channels = static_cast<int>(image[0]),
      .height = static_cast<int>(image[1]),
      .width = static_cast<int>(image[2]),
      .mean = o.recipe.mean,
      .std = o.recipe.std,
      .transforms = o.test_transform.empty() ? evaluation_transforms(o.recipe.transforms) : o.test_transform};
}

void announce(const TrainOptions& o, const TrainerOptions& trainer, const Loader& loader, JsonLog& log) {
  const Recipe& recipe = o.recipe;
  const int processes = trainer.processes->size();
  show(fmt::format("{}{} on {}, {}: --shards {} repeats these bits on any number of replicas\n",
                   processes > 1 ? fmt::format("{} processes, each ", processes) : "",
                   counted(trainer.replicas, "replica"), to_string(trainer.devices),
                   counted(trainer.shards, "shard"), trainer.shards));
  show(fmt::format("{} on {}: {} of {}, {} classes, batch {}, {} an epoch, {}\n", recipe.model, o.data,
                   counted(loader.dataset().size(), "image"), loader.image_shape(),
                   loader.dataset().info().classes.size(), recipe.batch_size,
                   counted(loader.steps_per_epoch(), "step"),
                   counted(loader.options().threads, "loader thread")));
  if (!recipe.name.empty()) {
    show(fmt::format("recipe {}: {}\n", recipe.name, recipe.summary()));
  }
  log.write({{"event", "start"},
             {"version", kVersion},
             {"processor", processor_name()},
             {"recipe", recipe.name.empty() ? Json(nullptr) : Json(recipe.name)},
             {"model", recipe.model},
             {"data", o.data},
             {"images", loader.dataset().size()},
             {"epochs", recipe.epochs},
             {"batch_size", recipe.batch_size},
             {"dtype", o.compute.dtype},
             {"device", to_string(trainer.devices)},
             {"processes", processes},
             {"replicas", trainer.replicas},
             {"shards", trainer.shards},
             {"threads", loader.options().threads},
             {"seed", o.seed}});
}

void announce_resumed(const fs::path& from, const Trainer& trainer, const Loader& loader, JsonLog& log) {
  const LoaderState at = loader.state();
  show(fmt::format("resumed from {}: epoch {}, step {}\n", from.string(), at.epoch + 1, at.step));
  log.write({{"event", "resume"},
             {"checkpoint", from.string()},
             {"epoch", at.epoch + 1},
             {"step", at.step},
             {"total_steps", trainer.steps()}});
}

/// On the test data. One that a signal breaks off is made anew after a resume: the loader stands at the
/// epoch's end.
void evaluate(const Training& training, const ScoreFunction& score, bool augmented) {
  const auto start = std::chrono::steady_clock::now();
  const Evaluation evaluation =
      training.trainer.evaluate(*training.test, score, {.stop = [] { return noted_signal() != 0; }});
  leave_if_asked(training, *training.test);
  training.report.evaluated(evaluation, seconds_since(start), augmented);
}

/// Of one epoch, from where the loader stands. `steps` are left of the training: what is kept of the last one
/// is the finished network.
void run_steps(std::int64_t steps, std::int64_t epoch, const Training& training, const LossFunction& loss) {
  if (steps <= 0) {
    return;
  }
  for (const Batch& batch : training.loader.epoch(epoch)) {
    training.report.step(training.trainer.step(batch, loss));
    if (--steps == 0) {
      training.trainer.finish();
    }
    if (training.checkpointer != nullptr && steps > 0) {
      training.checkpointer->after_step(training.trainer, training.loader);
    }
    leave_if_asked(training, training.loader);
    if (steps == 0) {
      return;
    }
  }
}

/// From where the loader stands to the end, which may be in the middle of an epoch. The finished network is
/// kept before it is evaluated.
void run_epochs(std::int64_t steps, const Training& training, const LossFunction& loss) {
  const auto& [trainer, loader, test, checkpointer, report, log, processes, max_bad_rate] = training;
  const std::int64_t an_epoch = loader.steps_per_epoch();
  for (LoaderState at = loader.state(); at.epoch * an_epoch < steps; at = {.epoch = at.epoch + 1}) {
    report.begin_epoch(at.epoch, at.step);
    run_steps(steps - at.epoch * an_epoch - at.step, at.epoch, training, loss);
    report.end_epoch(trainer.options().devices[0].is_cuda() ? std::optional(trainer.idle_seconds())
                                                            : std::nullopt);
    if (test != nullptr && (at.epoch + 1) * an_epoch < steps) {
      evaluate(training, &nn::Module::operator(), false);
    }
  }
}

void end_report(const Training& training) {
  if (const std::int64_t bad = agree(training.processes, 0, training.loader).bad_samples; bad > 0) {
    show(fmt::format("{} of the training data could not be read, over all epochs\n", counted(bad, "sample")));
  }
  training.report.finish(training.trainer.weights_hash(), training.loader.statistics());
}

struct Data {
  std::shared_ptr<const Dataset> train, test;  // test: or null
};

Data open_data(const TrainOptions& o) {
  Data data{.train = open_dataset(o.data, o.reading.open_options())};
  if (o.validation_fraction > 0) {
    ValidationSplit split = split_validation(data.train, o.validation_fraction, o.seed);
    data = {.train = std::move(split.train), .test = std::move(split.validation)};
  }
  if (!o.test_data.empty()) {
    data.test = open_dataset(o.test_data, o.reading.open_options(false));
  }
  return data;
}

/// Null where there is nothing to measure on.
std::unique_ptr<Loader> make_test_loader(const TrainOptions& o, const Data& data,
                                         const ModelDescription& model, const TrainerOptions& trainer,
                                         double max_bad_rate) {
  if (!data.test) {
    return nullptr;
  }
  LoaderOptions options = evaluation_loader(model, trainer, o.compute.threads);
  o.bad_samples.apply_to_evaluation(options);
  options.max_bad_rate = max_bad_rate;
  auto test = std::make_unique<Loader>(data.test, options);
  check_fits(*test, model, o.test_data.empty() ? o.data : o.test_data);
  return test;
}

/// What all processes must have alike: `run`, and what its bits do not depend on.
RunDescription describe_shared(const TrainOptions& o, RunDescription run, const Loader* test,
                               double max_bad_rate) {
  run.options["epochs"] = fmt::to_string(o.recipe.epochs);
  run.options["max bad rate"] = fmt::to_string(max_bad_rate);
  run.options["evaluation"] =
      test != nullptr
          ? fmt::format("{} samples {:016x}, {}{}", test->dataset().size(), test->state().fingerprint,
                        test->options().transforms, o.recipe.test_time_augmentation ? ", --tta" : "")
          : "none";
  return run;
}

/// At the end. Other ranks wait in the last of these, whatever becomes of rank 0's files.
void keep_and_measure(const TrainOptions& o, const ModelDescription& model, const Training& training,
                      bool is_kept, const Say& say) {
  write_all({[&] {
               if (training.checkpointer != nullptr && !is_kept) {
                 training.checkpointer->save(training.trainer, training.loader);
               }
             },
             [&] {
               if (!o.outputs.save.empty()) {
                 save_model(o.outputs.save, training.trainer.module(), model);
               }
             },
             [&] {
               if (training.test != nullptr) {
                 evaluate(training, &nn::Module::operator(), false);
               }
               if (training.test != nullptr && o.recipe.test_time_augmentation) {
                 evaluate(training, nn::average_over_augmentations, true);
               }
               end_report(training);
             }},
            say);
}

void train(const TrainOptions& o, const std::shared_ptr<ProcessGroup>& processes) {
  if (o.augmentation_given && o.test_data.empty() && o.validation_fraction == 0) {
    throw InputError(
        "--tta: there is nothing to measure on; add --test-data or --val-split, or leave it out");
  }
  o.outputs.check();
  o.checkpoints.check();
  note_signals();
  TrainerOptions trainer_options = o.compute.resolve(o.recipe.batch_size, o.seed, processes);
  const Data data = open_data(o);
  Loader loader{data.train, training_loader(o, trainer_options)};
  const ModelDescription model = describe_model(o, loader);
  const std::unique_ptr<Loader> test =
      make_test_loader(o, data, model, trainer_options, loader.options().max_bad_rate);
  check_first_training(model, trainer_options);
  const std::int64_t an_epoch = loader.steps_per_epoch(), steps = o.recipe.steps(an_epoch);
  o.recipe.apply(trainer_options, an_epoch);
  Trainer trainer{[&] { return nn::make_model(model.model, model.options()); }, o.recipe.optimizer,
                  trainer_options};
  o.recipe.arrange(trainer, an_epoch);

  const RunDescription run = describe_run(trainer, loader, o.recipe.describe());
  const double max_bad_rate = o.bad_samples.max_rate.value_or(LoaderOptions().max_bad_rate);
  require_same(*processes, describe_shared(o, run, test.get(), max_bad_rate));
  JsonLog log(o.outputs.log_json, o.checkpoints.resumes());
  announce(o, trainer_options, loader, log);
  Report report(log, o.recipe.epochs, an_epoch, o.log_every);
  const Say say = [&](const std::string& sentence) { report.say(sentence); };
  const std::unique_ptr<Checkpointer> checkpointer = o.checkpoints.writer(run, model, say);
  if (const fs::path from = o.checkpoints.resume(run, trainer, loader, say); !from.empty()) {
    announce_resumed(from, trainer, loader, log);
  }
  go_on_with_rank_0(*processes, loader);
  const std::int64_t first = trainer.steps();
  if (first == 0 && processes->rank() == 0 && o.recipe.initialize) {
    o.recipe.begin(trainer, data.train, loader.options());
    report.initialized();
  }
  const Training training{trainer, loader, test.get(), checkpointer.get(),
                          report,  log,    *processes, max_bad_rate};
  run_epochs(steps, training, o.recipe.loss());
  const bool is_kept = trainer.steps() == first && !checkpoints_in(o.checkpoints.folder).empty();
  keep_and_measure(o, model, training, is_kept, say);
}

/// Joins the other processes, if there are any, and tells them of mistakes; rank 0 alone writes.
void train_together(TrainOptions o) {
  const std::shared_ptr<ProcessGroup> processes = o.processes.join(o.compute.sum_order);
  const Place& place = processes->place();
  if (place.rank > 0) {
    silence_output();
    o.outputs = {};
    o.checkpoints = {};
  }
  if (o.compute.threads == 0) {
    o.compute.threads = std::max(1, available_cores() / place.local_size);
  }
  run_together(*processes, [&] {
    o.optimizer.apply(o.recipe.optimizer);
    train(o, processes);
  });
}

void add_recipe(CLI::App& command, TrainOptions& o) {
  Recipe& recipe = o.recipe;
  command
      .add_option_function<std::string>(
          "--recipe", [&recipe](const std::string& name) { recipe = find_recipe(name); },
          "airbench94, airbench94-muon or resnet18: sets the options that follow, and further ones; those "
          "that are given hold all the same (learning rates are for the recipe's own --batch-size)")
      ->trigger_on_parse();  // before the other options, which come into effect once all are read
  command.add_option("--model", recipe.model, fmt::format("{}", fmt::join(nn::model_names(), ", ")));
  command.add_option("--epochs", recipe.epochs, "Passes over the data; 9.9 ends in the middle of the tenth")
      ->check(in_range(0.001, 1e9));
  command.add_option("--batch-size", recipe.batch_size, "Images a step, over all shards")
      ->check(whole_number(1));
  o.optimizer.add_to(command);
  command.add_option(
      "--schedule", recipe.schedule,
      "Of the learning rate: constant, cosine, linear, triangle:START:PEAK:END, step:EPOCHS:FACTOR");
  command.add_option("--warm-up", recipe.warm_up, "Epochs over which the learning rate rises first")
      ->check(in_range(0, 1e6));
  command.add_option("--label-smoothing", recipe.label_smoothing, "Probability spread over all classes")
      ->check(in_range(0, 1));
  command.add_option("--transform", recipe.transforms,
                     "Applied to training images, e.g. random_crop:4,horizontal_flip,normalize");
  const std::function<std::string(const std::string&)> is_there = [](const std::string& word) {
    return word.empty() ? "got nothing, expected a number" : "";  // which would be read as 0
  };
  command.add_option("--mean", recipe.mean, "Of the pixels, in [0, 1]: one value, or one a channel")
      ->delimiter(',')
      ->check(is_there);
  command.add_option("--std", recipe.std, "Likewise, their standard deviation")
      ->delimiter(',')
      ->check(is_there);
  command.add_flag(
      "--tta", recipe.test_time_augmentation,
      "At the end, measure accuracy once more with test-time augmentation: scores averaged over six "
      "augmentations of each image");
  command.add_option("--seed", o.seed, "Of initial weights, order and augmentation")
      ->check(whole_number(0, std::numeric_limits<std::int64_t>::max()));
}

}  // namespace

void add_train(CLI::App& app) {
  auto options = std::make_shared<TrainOptions>();
  TrainOptions& o = *options;
  CLI::App& command = *app.add_subcommand("train", "Train a network");
  command.add_option("--data", o.data, dataset_kinds())->required();
  command.add_option("--test-data", o.test_data, "Measure accuracy on this data set after each epoch");
  command
      .add_option("--val-split", o.validation_fraction,
                  "Hold this part of every class out of training; without --test-data, measure on it")
      ->check(in_range(0, 1));
  add_recipe(command, o);
  command.add_option("--test-transform", o.test_transform,
                     "For evaluation (default: --transform without its random training)");
  o.order.add_to(command);
  o.bad_samples.add_to(command);
  o.reading.add_to(command);
  o.checkpoints.add_to(command);
  o.compute.add_to(command, true);
  command.add_option("--log-every", o.log_every, "Steps between printed losses")->check(whole_number(1));
  o.outputs.add_to(command);
  o.processes.add_to(command);
  const CLI::Option* augmentation = command.get_option("--tta");
  command.callback([options, augmentation] {
    options->augmentation_given = options->recipe.test_time_augmentation && augmentation->count() > 0;
    train_together(*options);
  });
}

}  // namespace millrace::app
