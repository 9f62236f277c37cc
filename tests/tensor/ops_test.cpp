#include "tensor/ops.h"

#include <cmath>
#include <functional>
#include <gmock/gmock.h>

#include "tests/tensor/sample.h"

namespace millrace {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

/// Integers wrap to their type, floating results round to it.
double as_type(double value, DType dtype) {
  if (!is_floating(dtype)) {
    return tensor({value}, {.dtype = DType::i64}).to(dtype).item();
  }
  return value;
}

void expect_near(const Tensor& got, DType dtype, const std::vector<double>& expected,
                 const std::string& what) {
  ASSERT_EQ(got.dtype(), dtype) << what;
  const std::vector<double> numbers = test::values(got);
  ASSERT_EQ(numbers.size(), expected.size()) << what;
  for (std::size_t i = 0; i < numbers.size(); ++i) {
    if (std::isnan(expected[i])) {
      ASSERT_TRUE(std::isnan(numbers[i])) << what << " at " << i;
    } else if (numbers[i] != expected[i]) {
      ASSERT_NEAR(numbers[i], expected[i], 2 * test::epsilon(dtype) * std::abs(expected[i]) + 1e-45)
          << what << " at " << i;
    }
  }
}

struct BinaryCase {
  const char* name;
  std::function<Tensor(const Tensor&, const Tensor&)> run;
  std::function<double(double, double)> reference;
};

const BinaryCase kBinary[] = {
    {"add", [](const Tensor& a, const Tensor& b) { return a + b; }, [](double a, double b) { return a + b; }},
    {"sub", [](const Tensor& a, const Tensor& b) { return a - b; }, [](double a, double b) { return a - b; }},
    {"mul", [](const Tensor& a, const Tensor& b) { return a * b; }, [](double a, double b) { return a * b; }},
    {"div", [](const Tensor& a, const Tensor& b) { return a / b; }, [](double a, double b) { return a / b; }},
    {"maximum", [](const Tensor& a, const Tensor& b) { return maximum(a, b); },
     [](double a, double b) { return std::max(a, b); }},
    {"minimum", [](const Tensor& a, const Tensor& b) { return minimum(a, b); },
     [](double a, double b) { return std::min(a, b); }},
};

struct Pair {
  Shape a, b, result;
};
const Pair kShapes[] = {{{}, {}, {}},
                        {{1}, {1}, {1}},
                        {{17}, {17}, {17}},
                        {{67, 3}, {67, 3}, {67, 3}},
                        {{5, 33}, {33}, {5, 33}},
                        {{5, 33}, {5, 1}, {5, 33}},
                        {{1, 19}, {7, 1}, {7, 19}},
                        {{}, {2, 3, 4}, {2, 3, 4}},
                        {{2, 1, 4, 1}, {3, 1, 35}, {2, 3, 4, 35}},
                        {{0, 3}, {3}, {0, 3}}};

TEST(Ops, BinaryMatchesLoopsForAllTypesShapesAndLayouts) {
  auto engine = test::random_engine();
  for (const BinaryCase& op : kBinary) {
    for (DType dtype : test::kAllTypes) {
      for (const Pair& shapes : kShapes) {
        for (int layout = 0; layout < 4; ++layout) {
          Tensor a = test::sample(shapes.a, dtype, engine,
                                  layout & 1 ? MemoryFormat::channels_last : MemoryFormat::row_major);
          Tensor b = test::sample(shapes.b, dtype, engine);
          if (layout & 2) {  // every other element of a larger tensor
            Shape wide = shapes.b;
            if (!wide.empty()) {
              wide[-1] *= 2;
            }
            b = test::sample(wide, dtype, engine);
            if (!wide.empty()) {
              b = b.slice(-1, 0, wide[-1], 2);
            }
          }
          const bool is_quotient = op.name == std::string("div");
          const DType result = is_quotient && !is_floating(dtype) ? DType::f32 : dtype;
          std::vector<double> expected;
          for (std::int64_t n = 0; n < shapes.result.numel(); ++n) {
            const double value = op.reference(test::broadcast_at(a, shapes.result, n),
                                              test::broadcast_at(b, shapes.result, n));
            expected.push_back(as_type(value, result));
          }
          const std::string what =
              fmt::format("{} {} {} layout {} seed {}", op.name, dtype, shapes.result, layout, test::seed());
          const Tensor got = op.run(a, b);
          ASSERT_EQ(got.shape(), shapes.result) << what;
          expect_near(got, result, expected, what);
        }
      }
    }
  }
}

TEST(Ops, ComparisonsMatchLoops) {
  auto engine = test::random_engine();
  const std::pair<std::function<Tensor(const Tensor&, const Tensor&)>, std::function<bool(double, double)>>
      table[] = {
          {[](const Tensor& a, const Tensor& b) { return equal(a, b); }, std::equal_to<double>()},
          {[](const Tensor& a, const Tensor& b) { return not_equal(a, b); }, std::not_equal_to<double>()},
          {[](const Tensor& a, const Tensor& b) { return less(a, b); }, std::less<double>()},
          {[](const Tensor& a, const Tensor& b) { return less_equal(a, b); }, std::less_equal<double>()},
          {[](const Tensor& a, const Tensor& b) { return greater(a, b); }, std::greater<double>()},
          {[](const Tensor& a, const Tensor& b) { return greater_equal(a, b); },
           std::greater_equal<double>()}};
  for (const auto& [run, reference] : table) {
    for (DType dtype : test::kAllTypes) {
      for (const Pair& shapes : kShapes) {
        const Tensor a = test::sample(shapes.a, dtype, engine);
        const Tensor b = test::sample(shapes.b, dtype, engine);
        std::vector<double> expected;
        for (std::int64_t n = 0; n < shapes.result.numel(); ++n) {
          expected.push_back(
              reference(test::broadcast_at(a, shapes.result, n), test::broadcast_at(b, shapes.result, n)));
        }
        expect_near(run(a, b), DType::u8, expected, fmt::format("{} {}", dtype, shapes.result));
      }
    }
  }
  EXPECT_THAT(test::values(greater(tensor({1, 2, 3}, {.dtype = DType::i32}), 1.5)), ElementsAre(0, 1, 1));
  EXPECT_THAT(
      test::values(equal(tensor({-1, 255}, {.dtype = DType::i32}), tensor({255}, {.dtype = DType::u8}))),
      ElementsAre(0, 1));
}

TEST(Ops, TypesMeetInTheWiderOne) {
  const std::tuple<DType, DType, DType> table[] = {
      {DType::u8, DType::i32, DType::i32},   {DType::i32, DType::i64, DType::i64},
      {DType::u8, DType::i64, DType::i64},   {DType::i64, DType::bf16, DType::bf16},
      {DType::f16, DType::bf16, DType::f32}, {DType::f32, DType::f16, DType::f32},
      {DType::f64, DType::bf16, DType::f64}, {DType::i64, DType::f32, DType::f32}};
  for (const auto& [a, b, result] : table) {
    EXPECT_EQ(promote(a, b), result);
    EXPECT_EQ(promote(b, a), result);
    EXPECT_EQ((ones({2}, {.dtype = a}) + ones({2}, {.dtype = b})).dtype(), result);
  }
  EXPECT_EQ((ones({2}, {.dtype = DType::bf16}) * 0.5).dtype(), DType::bf16);
  EXPECT_EQ((ones({2}, {.dtype = DType::i32}) + 2).dtype(), DType::i32);
  EXPECT_EQ((ones({2}, {.dtype = DType::i32}) + 0.5).dtype(), DType::f32);
  EXPECT_EQ((ones({2}, {.dtype = DType::i32}) / 2).dtype(), DType::f32);
}

TEST(Ops, NumbersOnEitherSide) {
  const Tensor x = tensor({1, 2, 4});
  EXPECT_THAT(test::values(x + 1), ElementsAre(2, 3, 5));
  EXPECT_THAT(test::values(x - 1), ElementsAre(0, 1, 3));
  EXPECT_THAT(test::values(x / 2), ElementsAre(0.5, 1, 2));
  EXPECT_THAT(test::values(1 - x), ElementsAre(0, -1, -3));
  EXPECT_THAT(test::values(4 / x), ElementsAre(4, 2, 1));
  EXPECT_THAT(test::values(3 * x), ElementsAre(3, 6, 12));
  EXPECT_THAT(test::values(-x), ElementsAre(-1, -2, -4));
  EXPECT_THAT(test::values(pow(x, 3)), ElementsAre(1, 8, 64));
  EXPECT_THAT(test::values(pow(x, 2)), ElementsAre(1, 4, 16));
  EXPECT_THAT(test::values(pow(x, -1)), ElementsAre(1, 0.5, 0.25));
  EXPECT_THAT(test::values(pow(tensor({-2, 3}, {.dtype = DType::i64}), 3)), ElementsAre(-8, 27));
  EXPECT_THAT(test::values(tensor({5}, {.dtype = DType::u8}) - 6), ElementsAre(255));
  EXPECT_THAT(test::values(4 - tensor({5}, {.dtype = DType::u8})), ElementsAre(255));
  EXPECT_THAT(test::values(1 / tensor({4}, {.dtype = DType::i32})), ElementsAre(0.25));
}

TEST(Ops, NumbersAreNotRoundedToTheHalfTypes) {
  for (DType dtype : {DType::bf16, DType::f16}) {
    const Tensor x = full({37}, 200, {.dtype = dtype});
    for (const double number : {1.005, 1 / 1.005, 1e-3}) {
      const float exact = static_cast<float>(number);
      EXPECT_EQ((x * number).at({36}), full({}, 200 * exact, {.dtype = dtype}).item()) << number;
      EXPECT_EQ((x / number).at({0}), full({}, 200 / exact, {.dtype = dtype}).item()) << number;
      EXPECT_EQ((number - x / 200).at({0}), full({}, exact - 1, {.dtype = dtype}).item()) << number;
      EXPECT_EQ((number / (x - 106)).at({36}), full({}, exact / 94, {.dtype = dtype}).item()) << number;
    }
  }
  EXPECT_EQ((full({}, 200, {.dtype = DType::bf16}) * 1.005).item(), 201);
  EXPECT_EQ(equal(ones({}, {.dtype = DType::bf16}), 1.0001).item(), 1) << "but in comparisons, as in PyTorch";
}

struct UnaryCase {
  const char* name;
  std::function<Tensor(const Tensor&)> run;
  std::function<double(double)> reference;
};

TEST(Ops, UnaryMatchesLoopsForAllTypesAndLayouts) {
  auto engine = test::random_engine();
  const UnaryCase table[] = {
      {"exp", [](const Tensor& x) { return exp(x); }, [](double v) { return std::exp(v); }},
      {"log", [](const Tensor& x) { return log(x); }, [](double v) { return std::log(v); }},
      {"sqrt", [](const Tensor& x) { return sqrt(x); }, [](double v) { return std::sqrt(v); }},
      {"tanh", [](const Tensor& x) { return tanh(x); }, [](double v) { return std::tanh(v); }},
      {"abs", [](const Tensor& x) { return abs(x); }, [](double v) { return std::abs(v); }},
      {"neg", [](const Tensor& x) { return -x; }, [](double v) { return -v; }},
      {"clamp", [](const Tensor& x) { return clamp(x, -1, 2); },
       [](double v) { return std::clamp(v, -1.0, 2.0); }}};
  for (const UnaryCase& op : table) {
    for (DType dtype : test::kAllTypes) {
      for (const Shape& shape : {Shape{}, Shape{1}, Shape{35}, Shape{2, 3, 5, 7}, Shape{0}}) {
        for (int layout = 0; layout < 3; ++layout) {
          Tensor x = test::sample(shape, dtype, engine,
                                  layout == 1 ? MemoryFormat::channels_last : MemoryFormat::row_major);
          if (layout == 2 && x.dim() > 0) {
            x = x.slice(-1, 0, 100, 3);
          }
          const bool stays = is_floating(dtype) || op.name == std::string("abs") ||
                             op.name == std::string("neg") || op.name == std::string("clamp");
          const DType result = stays ? dtype : DType::f32;
          std::vector<double> expected = test::values(x);
          for (double& value : expected) {
            value = as_type(op.reference(value), result);
          }
          expect_near(op.run(x), result, expected,
                      fmt::format("{} {} {} layout {}", op.name, dtype, shape, layout));
        }
      }
    }
  }
  EXPECT_THROW(clamp(ones({2}), 1, 0), InputError);
}

TEST(Ops, ClampOfIntegersWithAFractionIsAFraction) {
  const Tensor x = tensor({1, 2, 3}, {.dtype = DType::i64});
  EXPECT_EQ(clamp(x, 1.5, 2.5).dtype(), DType::f32);
  EXPECT_THAT(test::values(clamp(x, 1.5, 2.5)), ElementsAre(1.5, 2, 2.5));
  EXPECT_EQ(clamp(x, 2, HUGE_VAL).dtype(), DType::i64);
  EXPECT_THAT(test::values(clamp(x, 2, HUGE_VAL)), ElementsAre(2, 2, 3));
  Tensor whole = x.clone();
  EXPECT_THAT(test::input_error([&] { whole.clamp_(1, 2.5); }),
              HasSubstr("clamp_: the bound 2.5 does not keep"));
  EXPECT_THAT(test::values(whole.clamp_(2, HUGE_VAL)), ElementsAre(2, 2, 3));
}

TEST(Ops, ResultsKeepChannelsLast) {
  const Tensor image = zeros({2, 3, 4, 5}, {.format = MemoryFormat::channels_last});
  EXPECT_EQ((image + ones({3, 1, 1})).strides(), image.strides());
  EXPECT_EQ((ones({3, 1, 1}) + image).strides(), image.strides());
  EXPECT_EQ((image * 2).strides(), image.strides());
  EXPECT_EQ(exp(image).strides(), image.strides());
  EXPECT_EQ(greater(image, 0).strides(), image.strides());
}

TEST(Ops, NotANumberPropagates) {
  const double nan = std::nan("");
  for (DType dtype : test::kFloatingTypes) {
    const Tensor x = tensor({nan, 1, nan, 2}, {.dtype = dtype});
    const Tensor y = tensor({1, nan, nan, 3}, {.dtype = dtype});
    const std::vector<double> expected = {nan, nan, nan, 3};
    expect_near(maximum(x, y), dtype, expected, "maximum");
    EXPECT_TRUE(std::isnan(max(x).item()));
    EXPECT_TRUE(std::isnan(sum(x).item()));
    EXPECT_TRUE(std::isnan(clamp(x, -1, 1).at({0})));
    EXPECT_TRUE(std::isnan(exp(x).at({0})));
    EXPECT_TRUE(std::isnan(tanh(x).at({0})));
    EXPECT_EQ(argmax(x, 0).item(), 0);
  }
}

TEST(Ops, WhereChooses) {
  const Tensor choice = tensor({1, 0, 1}, {.dtype = DType::u8});
  EXPECT_THAT(test::values(where(choice, tensor({1, 2, 3}), full({}, 9))), ElementsAre(1, 9, 3));
  EXPECT_THAT(test::values(where(choice, zeros({2, 1}), ones({3}, {.dtype = DType::f64}))),
              ElementsAre(0, 1, 0, 0, 1, 0));
  EXPECT_THROW(where(tensor({1, 0, 1}), choice, choice), InputError);
}

TEST(Ops, WriteIntoAGivenOutput) {
  Tensor out = zeros({2, 3}, {.format = MemoryFormat::row_major});
  const auto version = out.storage()->version();
  add(ones({2, 3}), tensor({1, 2, 3}), out);
  EXPECT_THAT(test::values(out), ElementsAre(2, 3, 4, 2, 3, 4));
  EXPECT_EQ(out.storage()->version(), version + 1);
  mul(out, out, out);
  EXPECT_THAT(test::values(out), ElementsAre(4, 9, 16, 4, 9, 16));
  Tensor wrong = zeros({3, 2});
  EXPECT_THAT(test::input_error([&] {
                add(ones({2, 3}), ones({2, 3}), wrong);
              }),
              AllOf(HasSubstr("[2, 3]"), HasSubstr("[3, 2]")));
  Tensor other = zeros({2, 3}, {.dtype = DType::f64});
  EXPECT_THROW(add(ones({2, 3}), ones({2, 3}), other), InputError);
  Tensor expanded = zeros({1, 3}).expand({2, 3});
  EXPECT_THROW(add(ones({2, 3}), ones({2, 3}), expanded), InputError);
}

TEST(Ops, FunctionsWriteIntoAGivenOutput) {
  const Tensor x = tensor({4, 9});
  Tensor out = zeros({2});
  const auto version = out.storage()->version();
  sqrt(x, out);
  EXPECT_THAT(test::values(out), ElementsAre(2, 3));
  log(ones({2}), out);
  exp(out, out);
  EXPECT_THAT(test::values(out), ElementsAre(1, 1));
  tanh(zeros({2}), out);
  EXPECT_THAT(test::values(out), ElementsAre(0, 0));
  abs(tensor({-1, 2}), out);
  EXPECT_THAT(test::values(out), ElementsAre(1, 2));
  maximum(out, full({}, 2), out);
  minimum(out, tensor({1, 5}), out);
  EXPECT_THAT(test::values(out), ElementsAre(1, 2));
  EXPECT_EQ(out.storage()->version(), version + 7);
  Tensor wrong = zeros({3});
  EXPECT_THAT(test::input_error([&] { exp(x, wrong); }), AllOf(HasSubstr("[2]"), HasSubstr("[3]")));
}

TEST(Ops, InPlace) {
  Tensor x = tensor({1, 2, 3});
  EXPECT_THAT(test::values(x.add_(tensor({1, 1, 1}), 2)), ElementsAre(3, 4, 5));
  EXPECT_THAT(test::values(x.sub_(tensor({1}))), ElementsAre(2, 3, 4));
  EXPECT_THAT(test::values(x.mul_(tensor({2, 2, 2}, {.dtype = DType::f64}))), ElementsAre(4, 6, 8));
  EXPECT_THAT(test::values(x.div_(2).pow_(2).neg_().add_(1).sub_(0.5).mul_(2)), ElementsAre(-7, -17, -31));
  EXPECT_THAT(test::values(x.clamp_(-20, -10)), ElementsAre(-10, -17, -20));
  EXPECT_THAT(test::values(x.fill_(4).sqrt_()), ElementsAre(2, 2, 2));
  EXPECT_NEAR(x.fill_(1).exp_().log_().tanh_().at({1}), std::tanh(1.0), 1e-6);
  EXPECT_THAT(test::values(x.fill_(-3).abs_()), ElementsAre(3, 3, 3));
  Tensor whole = ones({2}, {.dtype = DType::i32});
  EXPECT_THAT(test::input_error([&] { whole.add_(0.5); }), HasSubstr("i32"));
  EXPECT_THROW(whole.div_(2), InputError);
  EXPECT_THROW(whole.mul_(ones({2})), InputError);
  EXPECT_THROW(whole.exp_(), InputError);
  EXPECT_THROW(x.add_(ones({2, 3})), InputError);
  Tensor expanded = ones({1}).expand({3});
  EXPECT_THROW(expanded.add_(1), InputError);
  EXPECT_THROW(expanded.copy_(ones({3})), InputError);
}

TEST(Ops, CopyConvertsAndBroadcasts) {
  auto engine = test::random_engine();
  for (DType from : test::kAllTypes) {
    for (DType to : test::kAllTypes) {
      const Tensor source = test::sample({5, 37}, from, engine);
      Tensor out = zeros({37, 5}, {.dtype = to}).t();
      out.copy_(source);
      std::vector<double> expected = test::values(source);
      for (double& v : expected) {
        if (to == DType::u8) {
          v = static_cast<std::uint8_t>(static_cast<std::int64_t>(v));
        }
        if (!is_floating(to)) {
          v = std::trunc(v);
        }
      }
      ASSERT_EQ(test::values(out), expected) << name_of(from) << " to " << name_of(to);
      ASSERT_EQ(test::values(source.to(to)), expected) << name_of(from) << " to " << name_of(to);
    }
  }
  Tensor rows = zeros({2, 3});
  rows.copy_(tensor({1, 2, 3}, {.dtype = DType::i64}));
  EXPECT_THAT(test::values(rows), ElementsAre(1, 2, 3, 1, 2, 3));
  EXPECT_THROW(rows.copy_(ones({2})), InputError);
}

/// Vectors and single conversions round alike, for every f32 exponent and both directions of a tie.
TEST(Ops, HalfTypesRoundToNearestEven) {
  std::vector<float> numbers;
  for (std::uint32_t high = 0; high < 0x10000; high += 7) {
    for (std::uint32_t low : {0x0000u, 0x7fffu, 0x8000u, 0x8001u, 0xffffu, 0x1000u}) {
      numbers.push_back(std::bit_cast<float>(high << 16 | low));
    }
  }
  const Tensor x = from_blob(numbers.data(), {static_cast<std::int64_t>(numbers.size())});
  const Tensor brain = x.to(DType::bf16);
  const Tensor half = x.to(DType::f16);
  for (std::size_t i = 0; i < numbers.size(); ++i) {
    ASSERT_EQ(brain.data<bfloat16>()[i].bits, bfloat16(numbers[i]).bits) << numbers[i];
    const float expected = float16(numbers[i]);
    const float got = half.data<float16>()[i];
    ASSERT_TRUE(got == expected || (std::isnan(got) && std::isnan(expected))) << numbers[i];
  }
}

TEST(Ops, ErrorsNameTheOperationAndBothShapes) {
  EXPECT_THAT(test::input_error([] {
                (void)(ones({2, 3}) + ones({2, 4}));
              }),
              AllOf(HasSubstr("add"), HasSubstr("[2, 3]"), HasSubstr("[2, 4]")));
  EXPECT_THROW((void)(Tensor() + ones({2})), InputError);
  EXPECT_THROW(exp(Tensor()), InputError);
}

TEST(Ops, AllClose) {
  EXPECT_TRUE(all_close(tensor({1, 2}), tensor({1, 2.000001})));
  EXPECT_FALSE(all_close(tensor({1, 2}), tensor({1, 2.1})));
  EXPECT_TRUE(all_close(tensor({1, 2}), tensor({1, 2.1}), 0, 0.2));
  EXPECT_FALSE(all_close(tensor({1, std::nan("")}), tensor({1, std::nan("")})));
  EXPECT_FALSE(all_close(ones({2}), ones({1, 2})));
  EXPECT_TRUE(all_close(tensor({HUGE_VAL}), tensor({HUGE_VAL})));
}

}  // namespace
}  // namespace millrace
