#include "pipeline/training/recipe.h"

#include <charconv>
#include <cmath>

#include "pipeline/image/transform_words.h"
#include "pipeline/training/whitening.h"

namespace millrace {
namespace {

/// Epochs as steps, of which one that has begun is one.
std::int64_t steps_of(double epochs, std::int64_t steps_per_epoch) {
  constexpr double kRounding = 1e-6;
  return static_cast<std::int64_t>(std::ceil(epochs * static_cast<double>(steps_per_epoch) - kRounding));
}

/// The numbers between the colons of "NAME:1:2", or nothing.
std::vector<double> read_numbers(std::string_view words) {
  std::vector<double> numbers;
  while (!words.empty()) {
    const std::string_view word = take(words, ':');
    double value = 0;
    const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), value);
    if (error != std::errc() || end != word.data() + word.size()) {
      return {};
    }
    numbers.push_back(value);
  }
  return numbers;
}

nn::Schedule triangle_schedule(double start, double peak, double end, std::int64_t steps) {
  const auto top = static_cast<std::int64_t>(peak * static_cast<double>(steps));
  std::vector<std::pair<std::int64_t, double>> points = {{top, 1.0}, {steps, end}};
  if (top > 0) {
    points.insert(points.begin(), {0, start});
  }
  return nn::piecewise_linear_schedule(std::move(points));
}

nn::Schedule base_schedule(std::string_view words, std::int64_t steps_per_epoch, std::int64_t steps) {
  std::string_view rest = words;
  const std::string_view name = take(rest, ':');
  const std::vector<double> numbers = read_numbers(rest);
  if (words == "constant") {
    return nn::constant_schedule();
  }
  if (words == "cosine") {
    return nn::cosine_schedule(steps);
  }
  if (words == "linear") {
    return nn::piecewise_linear_schedule({{0, 1.0}, {steps, 0.0}});
  }
  const auto is_factor = [](double value) { return value >= 0 && value <= 1e6; };
  if (name == "triangle" && numbers.size() == 3 && is_factor(numbers[0]) && numbers[1] >= 0 &&
      numbers[1] < 1 && is_factor(numbers[2])) {
    return triangle_schedule(numbers[0], numbers[1], numbers[2], steps);
  }
  if (name == "step" && numbers.size() == 2 && numbers[0] == std::floor(numbers[0]) && numbers[0] >= 1 &&
      numbers[0] <= 1e9 && numbers[1] > 0 && is_factor(numbers[1])) {
    return nn::step_schedule(static_cast<std::int64_t>(numbers[0]) * steps_per_epoch, numbers[1]);
  }
  throw InputError(
      "schedule: got '{}', expected constant, cosine, linear, triangle:START:PEAK:END or step:EPOCHS:FACTOR",
      words);
}

/// The recipe's optimizer with the group's factors, or the group's own.
nn::OptimizerOptions optimizer_of(const RecipeGroup& group, const Recipe& recipe) {
  nn::OptimizerOptions options = group.optimizer.value_or(recipe.optimizer);
  if (!group.optimizer) {
    std::visit(
        [&](auto& o) {
          o.learning_rate *= group.rate;
          if constexpr (requires { o.weight_decay; }) {
            o.weight_decay *= group.decay;
          }
        },
        options);
  }
  return options;
}

nn::Schedule schedule_of(const RecipeGroup& group, const Recipe& recipe, std::int64_t steps_per_epoch) {
  if (group.schedule.empty() && group.epochs == 0) {
    return {};  // the trainer's
  }
  const std::int64_t steps = recipe.steps(steps_per_epoch);
  const std::int64_t end = group.epochs > 0 ? steps_of(group.epochs, steps_per_epoch) : steps;
  nn::Schedule schedule = group.schedule.empty()
                              ? make_schedule(recipe.schedule, steps_per_epoch, steps, recipe.warm_up)
                              : make_schedule(group.schedule, steps_per_epoch, end);
  return [schedule = std::move(schedule), end](std::int64_t step) { return step < end ? schedule(step) : 0; };
}

std::string to_string(const RecipeGroup& group) {
  std::string text = group.optimizer ? nn::describe(*group.optimizer)
                                     : fmt::format("rate times {}, decay times {}", group.rate, group.decay);
  if (!group.schedule.empty()) {
    text += ", schedule " + group.schedule;
  }
  return text + (group.epochs > 0 ? fmt::format(", for {} epochs", group.epochs) : "");
}

}  // namespace

nn::Schedule make_schedule(std::string_view words, std::int64_t steps_per_epoch, std::int64_t steps,
                           double warm_up_epochs) {
  const auto warm_up_steps = static_cast<std::int64_t>(warm_up_epochs * static_cast<double>(steps_per_epoch));
  nn::Schedule schedule = base_schedule(words, steps_per_epoch, steps);
  return warm_up_steps > 0 ? nn::warm_up(warm_up_steps, std::move(schedule)) : schedule;
}

std::int64_t Recipe::steps(std::int64_t steps_per_epoch) const { return steps_of(epochs, steps_per_epoch); }

void Recipe::apply(LoaderOptions& options) const {
  options.batch_size = batch_size;
  options.transforms = transforms;
  options.mean = mean;
  options.std = std;
  options.epochs = steps_of(epochs, 1);
}

void Recipe::apply(TrainerOptions& options, std::int64_t steps_per_epoch) const {
  const std::int64_t total = steps(steps_per_epoch);
  options.schedule = make_schedule(schedule, steps_per_epoch, total, warm_up);
  if (lookahead_every > 0) {
    options.lookahead = {.every = lookahead_every,
                         .decay = [decay = lookahead_decay, total](std::int64_t step) {
                           return decay * std::pow(static_cast<double>(step) / static_cast<double>(total), 3);
                         }};
  }
}

void Recipe::arrange(Trainer& trainer, std::int64_t steps_per_epoch) const {
  for (const RecipeGroup& group : groups) {
    trainer.group(group.word, optimizer_of(group, *this), schedule_of(group, *this, steps_per_epoch));
  }
}

void Recipe::begin(Trainer& trainer, const std::shared_ptr<const Dataset>& data,
                   const LoaderOptions& loading) const {
  if (initialize) {
    initialize(trainer.module(), millrace::first_images(data, loading, first_images));
  }
}

LossFunction Recipe::loss() const {
  return [smoothing = label_smoothing](nn::Module& net, const Batch& batch) {
    return cross_entropy(net(batch.images()), batch.targets(),
                         {.label_smoothing = smoothing, .reduction = Reduction::sum});
  };
}

std::string Recipe::summary() const {
  std::string text = fmt::format("{}, {} epochs, batch {}, {}, schedule {}", model, epochs, batch_size,
                                 nn::describe(optimizer), schedule);
  if (warm_up > 0) {
    text += fmt::format(", warm-up {} epochs", warm_up);
  }
  for (const RecipeGroup& group : groups) {
    text += fmt::format("; {}: {}", group.word, to_string(group));
  }
  if (lookahead_every > 0) {
    text += fmt::format("; lookahead every {} steps, decay {:.4g} (t/T)^3", lookahead_every, lookahead_decay);
  }
  return text + fmt::format("; label smoothing {}; transforms {}{}", label_smoothing, transforms,
                            test_time_augmentation ? "; test-time augmentation" : "");
}

RunDescription::Values Recipe::describe() const {
  const bool by_length =
      lookahead_every > 0 || schedule == "cosine" || schedule == "linear" || schedule.starts_with("triangle");
  std::string when = fmt::format("{}{}, warm-up {}", schedule,
                                 by_length ? fmt::format(" over {} epochs", epochs) : "", warm_up);
  for (const RecipeGroup& group : groups) {
    when += group.epochs > 0 ? fmt::format("; {} {} for {} epochs", group.word, group.schedule, group.epochs)
                             : "";
  }
  return {{"recipe", name.empty() ? "none" : name},
          {"model", model},
          {"label smoothing", fmt::format("{}", label_smoothing)},
          {"lookahead", lookahead_every > 0 ? fmt::format("decay {} (t/T)^3", lookahead_decay) : "none"},
          {"schedule", when}};
}

}  // namespace millrace
