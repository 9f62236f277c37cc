#pragma once

#include <cstdint>
#include <functional>
#include <utility>
#include <vector>

namespace millrace::nn {

/// A factor on the learning rate as a function of progress in steps. Made by the functions below.
using Schedule = std::function<double(std::int64_t step)>;

Schedule constant_schedule();
Schedule step_schedule(std::int64_t every, double factor);
Schedule cosine_schedule(std::int64_t total, double end = 0);
/// Linear between (step, factor) points, constant outside them.
Schedule piecewise_linear_schedule(std::vector<std::pair<std::int64_t, double>> points);
/// Linear from 1 / (steps + 1) up to `after`'s value over the first `steps`.
Schedule warm_up(std::int64_t steps, Schedule after);

}  // namespace millrace::nn
