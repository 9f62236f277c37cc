#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <fmt/core.h>

#include "app/commands.h"
#include "app/options.h"
#include "app/output/grid.h"
#include "app/output/json_log.h"
#include "nn/test_time_augmentation.h"

namespace millrace::app {

namespace {

constexpr std::int64_t kMostPrintedClasses = 100;  // in a confusion matrix

struct EvalOptions {
  std::filesystem::path weights, grid;
  std::string data;
  BadSampleChoice bad_samples;
  ComputeOptions compute;
  bool json = false, augments = false;
};

/// "test set: 5210 of 10000 right, 52.10 %", the accuracy of each class, and the confusion matrix if there is
/// one.
void print(const Evaluation& evaluation, const std::vector<std::string>& classes) {
  fmt::print("test set: {} of {} right, {:.2f} %\n", evaluation.correct, evaluation.total,
             100 * evaluation.accuracy());
  std::size_t width = 0;
  for (const std::string& name : classes) {
    width = std::max(width, name.size());
  }
  for (std::size_t i = 0; i < classes.size(); ++i) {
    fmt::print("  {:{}}  {:5.1f} %\n", classes[i], width,
               100 * evaluation.class_accuracy(static_cast<int>(i)));
  }
  if (evaluation.confusion.empty()) {
    fmt::print("confusion: left out, there are {} classes; --json gives it for {} at most\n", classes.size(),
               kMostConfusionClasses);
    return;
  }
  fmt::print("confusion, a row a true class, a column a predicted one:\n");
  for (std::size_t i = 0; i < evaluation.confusion.size(); ++i) {
    fmt::print("  {:{}}", classes[i], width);
    for (const std::int64_t count : evaluation.confusion[i]) {
      fmt::print(" {:6}", count);
    }
    fmt::print("\n");
  }
}

void eval(const EvalOptions& o) {
  if (!o.grid.empty()) {
    check_can_write(o.grid);
  }
  const LoadedModel model = load_model(o.weights);
  TrainerOptions options = o.compute.resolve(0, 0);
  std::shared_ptr<const Dataset> data = open_dataset(o.data, {.train = false});
  LoaderOptions loading = evaluation_loader(model.description, options, o.compute.threads);
  o.bad_samples.apply(loading);
  Loader loader{data, loading};
  check_fits(loader, model.description, o.data);
  Trainer trainer{[&] { return load_model(o.weights).net; }, {}, options};
  const ScoreFunction as_it_is = &nn::Module::operator();
  const bool shows_confusion = o.json || std::ssize(model.description.classes) <= kMostPrintedClasses;
  const Evaluation evaluation = trainer.evaluate(
      loader, o.augments ? nn::average_over_augmentations : as_it_is, {.confusion = shows_confusion});
  if (!std::isfinite(evaluation.loss)) {
    throw InputError("{}: gives no finite scores for {}; train again with a smaller --lr", o.weights.string(),
                     o.data);
  }
  if (!o.grid.empty()) {
    draw_grid(o.grid, trainer.module(), model.description, data);
  }
  if (!o.json) {
    return print(evaluation, model.description.classes);
  }
  Json per_class = Json::object();
  for (std::size_t i = 0; i < model.description.classes.size(); ++i) {
    per_class[model.description.classes[i]] = evaluation.class_accuracy(static_cast<int>(i));
  }
  const Json result = {
      {"accuracy", evaluation.accuracy()},
      {"loss", evaluation.loss},
      {"correct", evaluation.correct},
      {"total", evaluation.total},
      {"class_accuracy", per_class},
      {"confusion", evaluation.confusion.empty() ? Json(nullptr) : Json(evaluation.confusion)}};
  fmt::print("{}\n", to_line(result));
}

}  // namespace

void add_eval(CLI::App& app) {
  auto options = std::make_shared<EvalOptions>();
  EvalOptions& o = *options;
  CLI::App& command = *app.add_subcommand("eval", "Measure a saved model's accuracy");
  command.add_option("--weights", o.weights, "A file that train --save wrote")->required();
  command.add_option("--data", o.data, fmt::format("Its test part is used: {}", dataset_kinds()))->required();
  o.bad_samples.add_to(command, false);
  o.compute.add_to(command, false);
  command.add_option("--grid", o.grid, "Draw some images with true and predicted labels into this PNG file");
  command.add_flag("--tta", o.augments,
                   "Test-time augmentation: average the scores over six augmentations of each image");
  command.add_flag("--json", o.json, "Print one JSON object");
  command.callback([options] { eval(*options); });
}

}  // namespace millrace::app
