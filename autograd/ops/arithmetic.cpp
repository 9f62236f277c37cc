#include "autograd/ops/support.h"

namespace millrace {

using detail::saved_for;

Variable add(const Variable& a, const Variable& b) {
  return record("add", add(a.data(), b.data()), {a, b}, [&](const Tensor&) {
    return [a = a.shape(), b = b.shape()](const Tensor& gradient, InputGradients& inputs) {
      if (inputs.needed(0)) {
        inputs.add(0, sum_to(gradient, a));
      }
      if (inputs.needed(1)) {
        inputs.add(1, sum_to(gradient, b));
      }
    };
  });
}

Variable sub(const Variable& a, const Variable& b) {
  return record("sub", sub(a.data(), b.data()), {a, b}, [&](const Tensor&) {
    return [a = a.shape(), b = b.shape()](const Tensor& gradient, InputGradients& inputs) {
      if (inputs.needed(0)) {
        inputs.add(0, sum_to(gradient, a));
      }
      if (inputs.needed(1)) {
        inputs.add(1, -sum_to(gradient, b));
      }
    };
  });
}

Variable mul(const Variable& a, const Variable& b) {
  return record("mul", mul(a.data(), b.data()), {a, b}, [&](const Tensor&) {
    return [shape_a = a.shape(), shape_b = b.shape(), a = saved_for(b, a.data()), b = saved_for(a, b.data())](
               const Tensor& gradient, InputGradients& inputs) {
      if (inputs.needed(0)) {
        inputs.add(0, sum_to(gradient * b.get("mul"), shape_a));
      }
      if (inputs.needed(1)) {
        inputs.add(1, sum_to(gradient * a.get("mul"), shape_b));
      }
    };
  });
}

Variable div(const Variable& a, const Variable& b) {
  return record("div", div(a.data(), b.data()), {a, b}, [&](const Tensor& out) {
    return [shape_a = a.shape(), b = SavedTensor(b.data()), out = saved_for(b, out)](const Tensor& gradient,
                                                                                     InputGradients& inputs) {
      const Tensor& divisor = b.get("div");
      const Tensor quotient = gradient / divisor;
      if (inputs.needed(0)) {
        inputs.add(0, sum_to(quotient, shape_a));
      }
      if (inputs.needed(1)) {
        inputs.add(1, -sum_to(quotient * out.get("div"), divisor.shape()));
      }
    };
  });
}

namespace {

/// Where the result is a's, a gets the gradient; where both are equal, each gets half.
template <typename Wins>
Variable extremum(std::string_view name, Tensor value, const Variable& a, const Variable& b, Wins wins) {
  return record(name, std::move(value), {a, b}, [&](const Tensor&) {
    return [name, wins, a = SavedTensor(a.data()), b = SavedTensor(b.data())](const Tensor& gradient,
                                                                              InputGradients& inputs) {
      const Tensor &left = a.get(name), &right = b.get(name);
      const Tensor half = equal(left, right).to(gradient.dtype()) * 0.5;
      const auto share = [&](const Tensor& won) { return gradient * (won.to(gradient.dtype()) + half); };
      if (inputs.needed(0)) {
        inputs.add(0, sum_to(share(wins(left, right)), left.shape()));
      }
      if (inputs.needed(1)) {
        inputs.add(1, sum_to(share(wins(right, left)), right.shape()));
      }
    };
  });
}

}  // namespace

Variable maximum(const Variable& a, const Variable& b) {
  return extremum("maximum", maximum(a.data(), b.data()), a, b,
                  [](const Tensor& x, const Tensor& y) { return greater(x, y); });
}

Variable minimum(const Variable& a, const Variable& b) {
  return extremum("minimum", minimum(a.data(), b.data()), a, b,
                  [](const Tensor& x, const Tensor& y) { return less(x, y); });
}

Variable add(const Variable& a, double b) {
  return record("add", add(a.data(), b), {a}, [&](const Tensor&) {
    return [](const Tensor& gradient, InputGradients& inputs) { inputs.add(0, gradient); };
  });
}

Variable mul(const Variable& a, double b) {
  return record("mul", mul(a.data(), b), {a}, [&](const Tensor&) {
    return [b](const Tensor& gradient, InputGradients& inputs) { inputs.add(0, gradient * b); };
  });
}

Variable operator+(const Variable& a, double b) { return add(a, b); }
Variable operator-(const Variable& a, double b) { return add(a, -b); }
Variable operator*(const Variable& a, double b) { return mul(a, b); }

Variable operator/(const Variable& a, double b) {
  return record("div", a.data() / b, {a}, [&](const Tensor&) {
    return [b](const Tensor& gradient, InputGradients& inputs) { inputs.add(0, gradient / b); };
  });
}

Variable operator+(double a, const Variable& b) { return add(b, a); }

Variable operator-(double a, const Variable& b) {
  return record("sub", a - b.data(), {b}, [&](const Tensor&) {
    return [](const Tensor& gradient, InputGradients& inputs) { inputs.add(0, -gradient); };
  });
}

Variable operator*(double a, const Variable& b) { return mul(b, a); }

Variable operator/(double a, const Variable& b) {
  return record("div", a / b.data(), {b}, [&](const Tensor& out) {
    return
        [b = SavedTensor(b.data()), out = SavedTensor(out)](const Tensor& gradient, InputGradients& inputs) {
          inputs.add(0, -(gradient * out.get("div") / b.get("div")));
        };
  });
}

Variable operator-(const Variable& a) {
  return record("neg", -a.data(), {a}, [&](const Tensor&) {
    return [](const Tensor& gradient, InputGradients& inputs) { inputs.add(0, -gradient); };
  });
}

Variable pow(const Variable& x, double exponent) {
  return record("pow", pow(x.data(), exponent), {x}, [&](const Tensor&) {
    return [exponent, x = SavedTensor(x.data())](const Tensor& gradient, InputGradients& inputs) {
      // The slope of a constant is 0, also where the power before it is infinite.
      const double before = exponent == 0 ? 0 : exponent - 1;
      inputs.add(0, gradient * (pow(x.get("pow"), before) * exponent));
    };
  });
}

Variable clamp(const Variable& x, double low, double high) {
  return record("clamp", clamp(x.data(), low, high), {x}, [&](const Tensor&) {
    return [low, high, x = SavedTensor(x.data())](const Tensor& gradient, InputGradients& inputs) {
      const Tensor& input = x.get("clamp");
      const Tensor inside = greater_equal(input, low) * less_equal(input, high);
      inputs.add(
          0, where(inside, gradient, zeros({}, {.dtype = gradient.dtype(), .device = gradient.device()})));
    };
  });
}

Variable where(const Tensor& condition, const Variable& a, const Variable& b) {
  return record("where", where(condition, a.data(), b.data()), {a, b}, [&](const Tensor&) {
    return [condition = SavedTensor(condition), shape_a = a.shape(), shape_b = b.shape()](
               const Tensor& gradient, InputGradients& inputs) {
      const Tensor& chosen = condition.get("where");
      const Tensor zero = zeros({}, {.dtype = gradient.dtype(), .device = gradient.device()});
      if (inputs.needed(0)) {
        inputs.add(0, sum_to(where(chosen, gradient, zero), shape_a));
      }
      if (inputs.needed(1)) {
        inputs.add(1, sum_to(where(chosen, zero, gradient), shape_b));
      }
    };
  });
}

}  // namespace millrace
