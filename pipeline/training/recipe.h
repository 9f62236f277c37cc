#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "pipeline/training/run_description.h"
#include "pipeline/training/trainer.h"

namespace millrace {

/// Parameters that a recipe trains in a way of their own.
struct RecipeGroup {
  std::string word;  ///< Part of their names.
  /// None: the recipe's, with learning rate and weight decay times these.
  std::optional<nn::OptimizerOptions> optimizer = {};
  double rate = 1, decay = 1;
  double epochs = 0;          ///< No steps are taken on them from then on; 0: they are trained to the end.
  std::string schedule = {};  ///< Over these epochs; "": the recipe's, as far as they go.
};

/// How to train a network on images, but for the data and the machine. A recipe is data: whoever wants
/// another takes one and changes it. See `find_recipe`.
struct Recipe {
  std::string name = {};
  std::string model = "lenet5";  ///< See nn::make_model.
  double epochs = 10;            ///< Passes over the data; the last one may end in its middle.
  std::int64_t batch_size = 64;
  nn::OptimizerOptions optimizer = nn::SgdOptions{.learning_rate = 0.01, .momentum = 0.9};
  std::vector<RecipeGroup> groups = {};
  std::string schedule = "constant";  ///< See make_schedule.
  double warm_up = 0;                 ///< Epochs.
  double label_smoothing = 0;
  int lookahead_every = 0;     ///< Steps; 0: none.
  double lookahead_decay = 0;  ///< Of the average, times (t / T)^3 after t of T steps.
  std::string transforms = "normalize";
  std::vector<float> mean = {0.5f}, std = {0.5f};
  bool test_time_augmentation = false;  ///< At the end; see nn::average_over_augmentations.
  /// Called once before the first step, with the network and the first `first_images` of the training data,
  /// as the network gets them; may be empty.
  std::function<void(nn::Module& net, const Tensor& images)> initialize = {};
  std::int64_t first_images = 0;

  /// Of a training whose epochs have so many.
  std::int64_t steps(std::int64_t steps_per_epoch) const;
  /// Its part of a loader's and of a trainer's options.
  void apply(LoaderOptions& options) const;
  void apply(TrainerOptions& options, std::int64_t steps_per_epoch) const;
  /// Gives the groups their optimizers and schedules. @throws InputError when the network lacks one of them.
  void arrange(Trainer& trainer, std::int64_t steps_per_epoch) const;
  /// Calls `initialize` with the trainer's network; the other replicas and processes follow at the first
  /// step.
  void begin(Trainer& trainer, const std::shared_ptr<const Dataset>& data,
             const LoaderOptions& loading) const;
  LossFunction loss() const;
  /// All of it on one line.
  std::string summary() const;
  /// What the weights depend on that trainer and loader do not know, for describe_run.
  RunDescription::Values describe() const;
};

/// "airbench94" and "airbench94-muon" (Jordan, arXiv 2404.00498, and his published scripts), and "resnet18"
/// (the usual 200 epochs), all for CIFAR-10; learning rates are for the recipe's own batch. @throws
/// InputError that lists the names.
Recipe find_recipe(std::string_view name);

/// Reads "constant", "cosine", "linear" (from 1 to 0), "triangle:START:PEAK:END" (from START up to 1 at the
/// part PEAK of the steps, then down to END) or "step:EPOCHS:FACTOR", after a linear warm-up.
/// @throws InputError that lists the kinds.
nn::Schedule make_schedule(std::string_view words, std::int64_t steps_per_epoch, std::int64_t steps,
                           double warm_up_epochs = 0);

}  // namespace millrace
