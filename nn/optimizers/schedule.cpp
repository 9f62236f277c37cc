#include "nn/optimizers/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "base/error.h"

namespace millrace::nn {

Schedule constant_schedule() {
  return [](std::int64_t) { return 1.0; };
}

Schedule step_schedule(std::int64_t every, double factor) {
  if (every < 1) {
    throw InputError("step_schedule: got every = {}, expected a number of steps from 1 up", every);
  }
  return [=](std::int64_t step) { return std::pow(factor, static_cast<double>(step / every)); };
}

Schedule cosine_schedule(std::int64_t total, double end) {
  if (total < 1) {
    throw InputError("cosine_schedule: got total = {}, expected a number of steps from 1 up", total);
  }
  return [=](std::int64_t step) {
    const double done =
        static_cast<double>(std::clamp<std::int64_t>(step, 0, total)) / static_cast<double>(total);
    return end + (1 - end) * 0.5 * (1 + std::cos(std::numbers::pi * done));
  };
}

Schedule piecewise_linear_schedule(std::vector<std::pair<std::int64_t, double>> points) {
  if (points.empty()) {
    throw InputError("piecewise_linear_schedule: got no points, expected at least one");
  }
  for (std::size_t i = 1; i < points.size(); ++i) {
    if (points[i].first <= points[i - 1].first) {
      throw InputError("piecewise_linear_schedule: got step {} after step {}, expected rising steps",
                       points[i].first, points[i - 1].first);
    }
  }
  return [points = std::move(points)](std::int64_t step) {
    const auto right =
        std::find_if(points.begin(), points.end(), [=](const auto& p) { return p.first > step; });
    if (right == points.begin()) {
      return points.front().second;
    }
    if (right == points.end()) {
      return points.back().second;
    }
    const auto left = right - 1;
    const double part =
        static_cast<double>(step - left->first) / static_cast<double>(right->first - left->first);
    return left->second + part * (right->second - left->second);
  };
}

Schedule warm_up(std::int64_t steps, Schedule after) {
  if (steps < 0) {
    throw InputError("warm_up: got {} steps, expected a number from 0 up", steps);
  }
  return [steps, after = std::move(after)](std::int64_t step) {
    const double value = after(step);
    return step >= steps ? value : value * static_cast<double>(step + 1) / static_cast<double>(steps + 1);
  };
}

}  // namespace millrace::nn
