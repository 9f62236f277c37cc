#include "table.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <gtest/gtest.h>
#include <numeric>
#include <regex>
#include <set>

#include "autograd/function.h"
#include "tensor/ops/random.h"
#include "tests/tensor/gpu/bounds.h"

namespace millrace::test {

const Table& op_table() {
  static const Table table = [] {
    Table made;
    add_arithmetic_cases(made);
    add_view_cases(made);
    add_reduction_cases(made);
    add_layer_cases(made);
    add_loss_cases(made);
    return made;
  }();
  return table;
}

namespace {

/// How the inputs lie in memory.
enum class Layout { row_major, channels_last, reversed, strided };

constexpr std::uint64_t kSeed = 20240817;

/// Distinct values in (low, high), shuffled: no ties for maxima, no zeros for kinks.
Array random_array(const Shape& shape, double low, double high, int which, Generator& generator) {
  Array array(shape);
  const auto count = static_cast<double>(array.values.size());
  for (std::size_t i = 0; i < array.values.size(); ++i) {
    array.values[i] = low + (high - low) * (static_cast<double>(i) + 0.37 + 0.17 * which) / count;
  }
  for (std::size_t i = array.values.size(); i > 1; --i) {
    std::swap(array.values[i - 1], array.values[generator.below(i)]);
  }
  return array;
}

Tensor to_tensor(const Array& array, DType dtype) {
  Tensor plain = empty(array.shape, {.dtype = DType::f64});
  std::ranges::copy(array.values, plain.data<double>());
  return plain.to(dtype);
}

Array to_array(const Tensor& tensor) {
  Array array(tensor.shape());
  const Tensor plain = tensor.to(kCpu).to(DType::f64).contiguous();
  std::copy_n(plain.data<double>(), plain.numel(), array.values.begin());
  return array;
}

/// The same values in another place; `reversed` has the first dimension innermost, `strided` leaves a gap
/// after every element of the first dimension's rows.
Tensor laid_out(const Tensor& tensor, Layout layout) {
  if (layout == Layout::channels_last) {
    return tensor.contiguous(MemoryFormat::channels_last).clone();
  }
  if (layout == Layout::row_major || tensor.dim() == 0) {
    return tensor.clone();
  }
  if (layout == Layout::reversed) {
    std::vector<int> dims(static_cast<std::size_t>(tensor.dim()));
    std::iota(dims.rbegin(), dims.rend(), 0);
    return tensor.permute(dims).contiguous().clone().permute(dims);
  }
  Shape twice = tensor.shape();
  twice[0] *= 2;
  Tensor holder = zeros(twice, {.dtype = tensor.dtype(), .device = tensor.device()});
  Tensor part = holder.slice(0, 0, twice[0], 2);
  part.copy_(tensor);
  return part;
}

/// Elements may differ by `tolerance` of their own size plus the mean size of all, and by `spare`.
void expect_near(const Array& got, const Array& expected, double tolerance, const std::string& what,
                 double spare = 0) {
  ASSERT_EQ(got.shape, expected.shape) << what;
  double mean = 0;
  for (double value : expected.values) {
    mean += std::abs(value) / static_cast<double>(expected.values.size());
  }
  for (std::size_t i = 0; i < got.values.size(); ++i) {
    const double allowed = tolerance * (std::abs(expected.values[i]) + mean) + spare;
    ASSERT_LE(std::abs(got.values[i] - expected.values[i]), allowed)
        << what << ": element " << i << " is " << got.values[i] << ", expected " << expected.values[i];
  }
}

/// d(sum(weights * reference(inputs))) / d(inputs[which]), by central differences.
Array finite_differences(const OpCase& op, Arrays inputs, const Array& weights, std::size_t which) {
  constexpr double kStep = 1e-5;
  Array gradient(inputs[which].shape);
  const auto weighted = [&] {
    const Array out = op.reference(inputs);
    return std::inner_product(out.values.begin(), out.values.end(), weights.values.begin(), 0.0);
  };
  for (std::size_t i = 0; i < gradient.values.size(); ++i) {
    double& x = inputs[which].values[i];
    const double before = x;
    x = before + kStep;
    const double above = weighted();
    x = before - kStep;
    const double below = weighted();
    x = before;
    gradient.values[i] = (above - below) / (2 * kStep);
  }
  return gradient;
}

struct Setting {
  DType dtype;
  Layout layout;
  Device device;
};

std::string describe(const OpCase& op, const Setting& setting) {
  const char* layouts[] = {"row-major", "channels-last", "reversed", "strided"};
  return fmt::format("{} {} {} {} on {}, seed {}", op.op, op.variant, setting.dtype,
                     layouts[static_cast<int>(setting.layout)], setting.device.to_string(), kSeed);
}

/// No operation stores more values on the way to a result or a gradient, one behind the other: the variance
/// has a mean, differences, squares, their sum and its share. Each is made of pointwise arithmetic and a sum,
/// which is no longer than the largest input and may be added one by one.
double tolerance_of(const OpCase& op, DType dtype) {
  constexpr int kStored = 5;
  std::int64_t terms = 0;
  for (const Shape& shape : op.shapes) {
    terms = std::max(terms, shape.numel());
  }
  const double roundings = static_cast<double>(terms + chain(terms, kCpuLanes)) + kPointwise;
  return rounded(dtype, kStored) + rounded(computed_in(dtype), roundings);
}

/// The reference's own error: that of central differences, and of f64 that goes by way of f32.
constexpr double kReference = 1e-7;

/// Inputs that need a gradient.
std::vector<Variable> inputs_of(const OpCase& op, const Setting& setting, Generator& generator) {
  std::vector<Variable> inputs;
  for (const Shape& shape : op.shapes) {
    const bool is_weight = op.f32_weights && !inputs.empty() && size_of(setting.dtype) == 2;
    const int which = static_cast<int>(inputs.size());
    const Tensor value = to_tensor(random_array(shape, op.low, op.high, which, generator),
                                   is_weight ? DType::f32 : setting.dtype);
    inputs.emplace_back(laid_out(value.to(setting.device), setting.layout), true);
  }
  return inputs;
}

/// `expected`: the gradients, which all layouts of a type share; the first one computes them.
void check(const OpCase& op, const Setting& setting, Arrays& expected) {
  const std::string what = describe(op, setting);
  Generator generator(kSeed);
  const std::vector<Variable> inputs = inputs_of(op, setting, generator);
  Arrays arrays;  // as rounded to the type
  for (const Variable& input : inputs) {
    arrays.push_back(to_array(input.data()));
  }
  const double tolerance = tolerance_of(op, setting.dtype);

  const Variable out = op.run(inputs);
  expect_near(to_array(out.data()), op.reference(arrays), tolerance, what + ", value", kReference);

  const Tensor weights = to_tensor(random_array(out.shape(), -1, 1, 0, generator), out.dtype());
  if (setting.layout == Layout::row_major) {
    expected.clear();
    for (std::size_t i = 0; i < inputs.size(); ++i) {
      expected.push_back(finite_differences(op, arrays, to_array(weights), i));
    }
  }
  for (const char* pass : {"first", "second"}) {  // the second writes where the first one's gradients are
    op.run(inputs).backward(weights);
    for (std::size_t i = 0; i < inputs.size(); ++i) {
      const std::string name = fmt::format("{}, gradient of input {}, {} pass", what, i, pass);
      Variable input = inputs[i];
      ASSERT_TRUE(input.grad().defined()) << name;
      ASSERT_EQ(input.grad().dtype(), input.dtype()) << name;
      expect_near(to_array(input.grad()), expected[i], tolerance, name, kReference);
      input.zero_grad();
    }
  }
}

/// On the GPU against the CPU, which computes in f64 where it can and in f32 elsewhere.
void compare_with_cpu(const OpCase& op, const Setting& setting) {
  const std::string what = describe(op, setting);
  Generator generator(kSeed);
  const std::vector<Variable> inputs = inputs_of(op, setting, generator);
  std::vector<Variable> wide;
  for (const Variable& input : inputs) {
    wide.emplace_back(input.data().to(kCpu).to(op.f64 ? DType::f64 : DType::f32), true);
  }
  const double tolerance = tolerance_of(op, setting.dtype);

  const Variable out = op.run(inputs), expected = op.run(wide);
  ASSERT_TRUE(out.data().device().is_cuda()) << what;
  expect_near(to_array(out.data()), to_array(expected.data()), tolerance, what + ", value");

  const Tensor weights = to_tensor(random_array(out.shape(), -1, 1, 0, generator), out.dtype());
  out.backward(weights.to(setting.device));
  expected.backward(weights.to(expected.dtype()));
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    const std::string name = what + ", gradient of input " + std::to_string(i);
    ASSERT_TRUE(inputs[i].grad().defined()) << name;
    ASSERT_EQ(inputs[i].grad().dtype(), inputs[i].dtype()) << name;
    expect_near(to_array(inputs[i].grad()), to_array(wide[i].grad()), tolerance, name);
  }
}

/// Calls `f` with every type of `dtypes` that the operation takes and every layout that its inputs can have.
template <typename F>
void for_each_setting(const OpCase& op, Device device, std::initializer_list<DType> dtypes, F&& f) {
  const bool has_image = std::ranges::any_of(op.shapes, [](const Shape& shape) { return shape.size() == 4; });
  for (DType dtype : dtypes) {
    if (dtype == DType::f64 && !op.f64) {
      continue;
    }
    for (Layout layout : {Layout::row_major, Layout::channels_last, Layout::reversed, Layout::strided}) {
      if (layout == Layout::channels_last && !has_image) {
        continue;
      }
      f(op, Setting{dtype, layout, device});
      if (testing::Test::HasFatalFailure()) {
        return;
      }
    }
  }
}

class OpTable : public testing::TestWithParam<OpCase> {};

TEST_P(OpTable, ValueAndGradient) {
  Arrays expected;
  for_each_setting(GetParam(), kCpu, {DType::f32, DType::f64, DType::bf16},
                   [&](const OpCase& op, const Setting& setting) { check(op, setting, expected); });
}

/// Keeping history must not change the value, and without gradients there is none.
TEST_P(OpTable, NoHistoryWithoutGradients) {
  const OpCase& op = GetParam();
  Generator generator(kSeed);
  std::vector<Variable> inputs;
  for (const Shape& shape : op.shapes) {
    inputs.emplace_back(to_tensor(random_array(shape, op.low, op.high, 0, generator), DType::f32));
  }
  EXPECT_FALSE(op.run(inputs).requires_grad());
  for (Variable& input : inputs) {
    input.set_requires_grad(true);
  }
  const NoGradScope scope;
  const Variable out = op.run(inputs);
  EXPECT_TRUE(out.is_leaf() || out.id() == inputs[0].id());
}

std::string case_name(const testing::TestParamInfo<OpCase>& info) {
  std::string op = info.param.op;
  for (const auto& [sign, word] : {std::pair("+", "_plus"), std::pair("-", "_minus"),
                                   std::pair("*", "_times"), std::pair("/", "_over")}) {
    if (const auto at = op.find(sign); at != std::string::npos) {
      op.replace(at, 1, word);
    }
  }
  return op + "_" + info.param.variant;
}

INSTANTIATE_TEST_SUITE_P(All, OpTable, testing::ValuesIn(op_table()), case_name);

class OpTableOnCuda : public testing::TestWithParam<OpCase> {};
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(OpTableOnCuda);

TEST_P(OpTableOnCuda, AgreesWithCpu) {
  for_each_setting(GetParam(), {Device::Kind::cuda, 0}, {DType::f32, DType::f64, DType::bf16, DType::f16},
                   compare_with_cpu);
}

INSTANTIATE_TEST_SUITE_P(All, OpTableOnCuda,
                         testing::ValuesIn(cuda_device_count() > 0 ? op_table() : Table()), case_name);

/// One line instead of one for each operation.
TEST(OpTableCuda, HasADevice) {
  if (cuda_device_count() == 0) {
    GTEST_SKIP() << "no operation is tested on CUDA: " << cuda_unavailable_reason();
  }
}

/// Every operation that ops.h declares has an entry.
TEST(OpTableEntries, AreComplete) {
  const auto root = std::filesystem::path(MILLRACE_TEST_FILES).parent_path().parent_path().parent_path();
  std::ifstream header(root / "autograd" / "ops.h");
  ASSERT_TRUE(header) << "autograd/ops.h is not where the test expects it";
  std::set<std::string> declared, entered;
  const std::regex declaration(R"(^(?:inline )?(?:Variable|BatchNormResult) (\w+[^\w\s(]?)\()");
  std::smatch match;
  for (std::string line; std::getline(header, line);) {
    if (std::regex_search(line, match, declaration)) {
      declared.insert(match[1]);
    }
  }
  for (const OpCase& op : op_table()) {
    entered.insert(op.op);
  }
  EXPECT_GE(declared.size(), 50u);
  EXPECT_EQ(declared, entered);
}

}  // namespace

}  // namespace millrace::test
