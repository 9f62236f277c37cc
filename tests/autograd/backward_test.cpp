#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sstream>

#include "autograd/function.h"
#include "autograd/ops.h"
#include "tests/tensor/sample.h"

namespace millrace {
namespace {

using test::values;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::ThrowsMessage;

Variable parameter(std::initializer_list<double> numbers) { return {tensor(numbers), true}; }

TEST(Backward, TutorialExample) {
  const Variable x(ones({2, 2}), true);
  const Variable y = x + 2;
  const Variable z = y * y * 3;
  const Variable out = mean(z);
  EXPECT_EQ(out.item(), 27);
  out.backward();
  EXPECT_THAT(values(x.grad()), ElementsAre(4.5, 4.5, 4.5, 4.5));
}

TEST(Backward, GradientGiven) {
  const Variable x = parameter({1, 2, 3});
  (x * x).backward(tensor({1, 10, 100}));
  EXPECT_THAT(values(x.grad()), ElementsAre(2, 40, 600));
}

TEST(Backward, OneNumberIsTheGradientOfOne) {
  const Variable x = parameter({1, 2});
  mean(x).backward(tensor({10}));
  EXPECT_THAT(values(x.grad()), ElementsAre(5, 5));
  const Variable leaf(full({}, 3), true);
  leaf.backward(tensor({4}));
  EXPECT_EQ(leaf.grad().item(), 4);
}

TEST(Backward, AccumulatesUntilZeroGrad) {
  Variable x = parameter({1, 2});
  EXPECT_FALSE(x.grad().defined());
  sum(x * 2).backward();
  sum(x * 3).backward();
  EXPECT_THAT(values(x.grad()), ElementsAre(5, 5));
  x.zero_grad();
  EXPECT_THAT(values(x.grad()), ElementsAre(0, 0));
  sum(x * 4).backward();
  EXPECT_THAT(values(x.grad()), ElementsAre(4, 4));
  x.zero_grad();
  sum(x * 5).backward();  // without a look in between
  EXPECT_THAT(values(x.grad()), ElementsAre(5, 5));
}

TEST(Backward, GradientsOfLeavesDoNotShareMemory) {
  const Variable a = parameter({1, 2}), b = parameter({3, 4});
  for (int i = 0; i < 2; ++i) {
    (a + b).backward(tensor({1, 10}));
  }
  EXPECT_THAT(values(a.grad()), ElementsAre(2, 20));
  EXPECT_THAT(values(b.grad()), ElementsAre(2, 20));
  const Tensor given = tensor({1, 1});
  const Variable c = parameter({5, 6});
  c.backward(given);
  c.backward(given);
  EXPECT_THAT(values(c.grad()), ElementsAre(2, 2));
  EXPECT_THAT(values(given), ElementsAre(1, 1));
}

TEST(Backward, BranchesMeet) {
  const Variable x = parameter({1, -2, 3});
  const Variable y = x * 2;
  sum(relu(y) + y * y).backward();  // y's gradient comes in two parts, on memory that they share
  EXPECT_THAT(values(x.grad()), ElementsAre(2 + 8, -16, 2 + 24));
}

TEST(Backward, WaitsForTheLongestWay) {
  const Variable x = parameter({1, 2});
  const Variable y = x * 1;
  sum(y + (y * 2) * 3).backward();  // y is one step from the sum, and three
  EXPECT_THAT(values(x.grad()), ElementsAre(7, 7));
}

TEST(Backward, AddingUpLeavesSharedGradientsAlone) {
  const Variable x = parameter({1, 2}), w = parameter({0, 0});
  const Variable b = exp(w);
  const Variable a = x * 1;
  const Variable again = a * 3;
  ((a + b) + again)
      .backward(tensor({1, 10}));  // a's first part is b's gradient too, and b's turn comes later
  EXPECT_THAT(values(w.grad()), ElementsAre(1, 10));
  EXPECT_THAT(values(x.grad()), ElementsAre(4, 40));
}

TEST(Backward, AddsToAnExpandedGradient) {
  const Variable x = parameter({0, 1});
  const Variable y = x * 1;
  const Variable first = sum(y * y);
  (first + sum(y) * 1).backward();  // sum's gradient, one number seen as two, comes first
  EXPECT_THAT(values(x.grad()), ElementsAre(1, 3));
}

TEST(Backward, ElementwiseOperationsLeaveSharedGradientsAlone) {
  const Variable x = parameter({-1, 2}), y = parameter({3, -4});
  const Variable sum_of = exp(x * 1) + exp(y * 1);  // one gradient tensor reaches both exp
  sum_of.backward(tensor({1, 1}));
  EXPECT_NEAR(x.grad().at({0}), std::exp(-1.0), 1e-6);
  EXPECT_NEAR(y.grad().at({0}), std::exp(3.0), 1e-4);
  EXPECT_NEAR(y.grad().at({1}), std::exp(-4.0), 1e-6);
}

TEST(Backward, TheGivenGradientIsNotWrittenTo) {
  const Variable x = parameter({-1, 2});
  const Tensor given = tensor({5, 5});
  relu(x * 1).backward(given);
  EXPECT_THAT(values(given), ElementsAre(5, 5));
}

TEST(Backward, FreesTheGraphUnlessToldToRetainIt) {
  const Variable x = parameter({3});
  const Variable y = sum(x * x);
  y.backward({.retain_graph = true});
  y.backward();
  EXPECT_THAT(values(x.grad()), ElementsAre(12));
  EXPECT_THAT([&] { y.backward(); }, ThrowsMessage<InputError>(HasSubstr("retain_graph")));
  EXPECT_THAT(values(x.grad()), ElementsAre(12));
}

TEST(Backward, FreesSavedTensors) {
  const Variable x(ones({1024}), true);
  const Variable y = exp(x);
  const std::weak_ptr<Storage> saved = y.data().storage();
  const Variable z = sum(y * 2);
  z.backward();
  EXPECT_EQ(saved.use_count(), 1);  // y alone holds it now
}

TEST(Backward, DoesNotHoldValuesThatNoGradientNeeds) {
  const Variable x(ones({1024}), true);
  std::weak_ptr<Storage> middle;
  Variable z;
  {
    const Variable y = x + 1;
    middle = y.data().storage();
    z = sum(y);
  }
  EXPECT_TRUE(middle.expired());
  z.backward();
  EXPECT_EQ(x.grad().at({0}), 1);
}

TEST(Backward, Errors) {
  const Variable x = parameter({1, 2});
  const Variable constant(tensor({1, 2}));
  EXPECT_THAT([&] { (x * 2).backward(); },
              ThrowsMessage<InputError>(HasSubstr("[2] needs a gradient of that shape")));
  EXPECT_THAT([&] { (x * 2).backward(ones({3})); },
              ThrowsMessage<InputError>(HasSubstr("got a gradient [3], expected [2]")));
  EXPECT_THAT([&] { sum(constant).backward(); },
              ThrowsMessage<InputError>(HasSubstr("nothing that requires a gradient")));
  EXPECT_THAT([] { Variable().data(); }, ThrowsMessage<InputError>(HasSubstr("undefined")));
  EXPECT_THAT([&] { (x * 2).set_requires_grad(true); }, ThrowsMessage<InputError>(HasSubstr("mul")));
  EXPECT_THAT([] { Variable(arange(0, 3, 1, {.dtype = DType::i64}), true); },
              ThrowsMessage<InputError>(HasSubstr("i64")));
}

TEST(Backward, AnErrorLeavesNoMarks) {
  const Variable x = parameter({1, 2});
  Variable y = x * x;
  const Variable z = sum(exp(y));
  y.data().add_(1);  // exp saved its result, mul saved x: only a saved tensor counts
  Variable broken = exp(x);
  const Variable w = sum(broken * 2);
  broken.data().zero_();
  EXPECT_THROW(w.backward(), InputError);
  z.backward();  // x and its marks are as before
  EXPECT_NEAR(x.grad().at({0}), 2 * std::exp(1.0), 1e-5);
}

TEST(SavedTensor, ChangedInPlace) {
  Variable x = parameter({1, 2});
  const Variable y = sum(x * x);
  x.data().add_(1);
  EXPECT_THAT([&] { y.backward(); }, ThrowsMessage<InputError>(HasSubstr("mul: a tensor [2]")));
}

TEST(SavedTensor, EachOperationNamesItself) {
  const Variable weight(ones({4, 3}), true);
  Variable input(ones({2, 3}), true);
  const Variable out = sum(linear(input, weight));
  weight.data().mul_(2);
  EXPECT_THAT([&] { out.backward(); }, ThrowsMessage<InputError>(HasSubstr("linear: a tensor [4, 3]")));
}

TEST(SavedTensor, AViewWithItsOwnVersionIsNotDisturbedByItsNeighbours) {
  Tensor flat = ones({4});
  const Variable a(flat.narrow(0, 0, 2).with_own_version(), true);
  const Variable b(flat.narrow(0, 2, 2).with_own_version(), true);
  const Variable y = sum(a * a);
  b.data().add_(1);
  EXPECT_NO_THROW(y.backward());
}

TEST(ReadyHook, OncePerLeafWhenItsLastUseIsDone) {
  const Variable first = parameter({1}), shared = parameter({2}), last = parameter({3});
  const Variable out = ((first * shared) * last) * shared;
  std::vector<const void*> ready;
  out.backward({.on_grad_ready = [&](const Variable& leaf) {
    ready.push_back(leaf.id());
    EXPECT_TRUE(leaf.grad().defined());
    if (leaf.id() == shared.id()) {
      EXPECT_EQ(leaf.grad().item(), 2 * 1 * 2 * 3);
    }
  }});
  EXPECT_THAT(ready, ElementsAre(last.id(), first.id(), shared.id()));
}

TEST(ReadyHook, ALeafUsedTwiceByOneFunction) {
  const Variable x = parameter({3});
  int calls = 0;
  (x * x).backward({.on_grad_ready = [&](const Variable& leaf) {
    ++calls;
    EXPECT_EQ(leaf.grad().item(), 6);
  }});
  EXPECT_EQ(calls, 1);
}

TEST(ReadyHook, FiresAfterTheWholeBackwardOfItsFunction) {
  // The data gradient reads the weight, so the weight may change only when both are done.
  const Variable x(ones({1, 2}), true), weight(ones({1, 2}), true);
  const Variable hidden = x * 1;
  linear(hidden, weight).backward({.on_grad_ready = [&](const Variable& leaf) {
    if (leaf.id() == weight.id()) {
      leaf.data().fill_(100);
    }
  }});
  EXPECT_THAT(values(x.grad()), ElementsAre(1, 1));
}

TEST(ReadyHook, AnExceptionInItLeavesTheGraphInOrder) {
  const Variable x = parameter({3}), y = parameter({4});
  const Variable out = x * y;
  const auto fail = [](const Variable&) { throw std::runtime_error("no"); };
  EXPECT_THROW(out.backward({.retain_graph = true, .on_grad_ready = fail}), std::runtime_error);
  int calls = 0;
  out.backward({.on_grad_ready = [&](const Variable&) { ++calls; }});
  EXPECT_EQ(calls, 2);
}

TEST(BoundGradient, IsWrittenInPlace) {
  Tensor flat = full({14}, 7);
  Variable weight(ones({2, 3}), true), bias(ones({2}), true);
  weight.bind_grad(flat.narrow(0, 0, 6).view({2, 3}));
  bias.bind_grad(flat.narrow(0, 8, 2));
  const Variable x(ones({4, 3}));
  sum(linear(x, weight, bias)).backward();
  EXPECT_EQ(weight.grad().raw(), flat.raw());
  EXPECT_EQ(bias.grad().raw(), flat.narrow(0, 8, 2).raw());
  EXPECT_THAT(values(flat), ElementsAre(4, 4, 4, 4, 4, 4, 7, 7, 4, 4, 7, 7, 7, 7));
  sum(linear(x, weight, bias)).backward();
  EXPECT_THAT(values(flat), ElementsAre(8, 8, 8, 8, 8, 8, 7, 7, 8, 8, 7, 7, 7, 7));
  weight.zero_grad();
  EXPECT_EQ(flat.at({0}), 8);  // lazily
  EXPECT_THAT(values(weight.grad()), ElementsAre(0, 0, 0, 0, 0, 0));
  EXPECT_EQ(flat.at({0}), 0);
}

TEST(BoundGradient, IsLentOnlyOnceAStep) {
  Tensor flat = full({4}, 7);
  Variable weight(ones({2, 2}), true);
  weight.bind_grad(flat.view({2, 2}));
  const Variable x(ones({1, 2}));
  sum(linear(linear(x, weight), weight)).backward();  // shared by two layers
  EXPECT_THAT(values(flat), ElementsAre(4, 4, 4, 4));
}

TEST(BoundGradient, IsNotLentToTwoInputsOfOneFunction) {
  const Variable x(tensor({{1, 2}, {5, -2}, {3, 9}}));
  const Tensor given = tensor({{1, 2}, {3, 4}, {6, 5}});
  const auto gradients = [&](const Variable& weight, const Variable& bias) {
    batch_norm(x, weight, bias).out.backward(given);  // asks for both places before it hands either over
  };
  const Variable apart_weight = parameter({1, 1}), apart_bias = parameter({1, 1});
  gradients(apart_weight, apart_bias);
  Variable shared = parameter({1, 1});
  shared.bind_grad(full({2}, 7));
  gradients(shared, shared);
  EXPECT_EQ(values(shared.grad()), values(apart_weight.grad() + apart_bias.grad()));
}

/// What an operation is given as destination for its first input's gradient.
const std::byte* destination_seen(const Variable& x) {
  const std::byte* seen = nullptr;
  const Variable out = record("probe", x.data().clone(), {x}, [&](const Tensor&) {
    return [&seen](const Tensor& gradient, InputGradients& inputs) {
      Tensor destination = inputs.destination(0);
      seen = destination.raw();
      destination.copy_(gradient);
      inputs.add(0, std::move(destination));
    };
  });
  out.backward(ones(x.shape()));
  return seen;
}

TEST(BoundGradient, DestinationIsTheBufferForTheFirstGradientOnly) {
  Tensor flat = zeros({3});
  Variable x = parameter({1, 2, 3});
  x.bind_grad(flat);
  EXPECT_EQ(destination_seen(x), flat.raw());
  EXPECT_NE(destination_seen(x), flat.raw());
  EXPECT_THAT(values(flat), ElementsAre(2, 2, 2));
  x.zero_grad();
  EXPECT_EQ(destination_seen(x), flat.raw());
  EXPECT_THAT(values(flat), ElementsAre(1, 1, 1));
}

TEST(BoundGradient, Errors) {
  Variable x = parameter({1, 2, 3});
  EXPECT_THAT([&] { x.bind_grad(zeros({4})); },
              ThrowsMessage<InputError>(HasSubstr("f32 [4] on cpu, expected f32 [3]")));
  EXPECT_THAT([&] { x.bind_grad(zeros({3}, {.dtype = DType::f64})); },
              ThrowsMessage<InputError>(HasSubstr("f64")));
  EXPECT_THAT([&] { x.bind_grad(zeros({6}).slice(0, 0, 6, 2)); },
              ThrowsMessage<InputError>(HasSubstr("row-major")));
}

TEST(Record, AWrongGradientNamesTheOperation) {
  const Variable x = parameter({1, 2, 3});
  const Variable out = record("mine", x.data().clone(), {x}, [&](const Tensor&) {
    return [](const Tensor&, InputGradients& inputs) { inputs.add(0, ones({2})); };
  });
  EXPECT_THAT([&] { out.backward(ones({3})); },
              ThrowsMessage<InputError>(HasSubstr("mine: got a gradient [2], expected [3]")));
}

TEST(Record, SavesNothingWithoutHistory) {
  const Variable x(tensor({1, 2, 3}));
  bool asked = false;
  record("mine", x.data(), {x}, [&](const Tensor&) {
    asked = true;
    return [](const Tensor&, InputGradients&) {};
  });
  EXPECT_FALSE(asked);
}

TEST(Variable, PrintsItsValue) {
  std::ostringstream out;
  out << Variable(tensor({{1, 2}, {3, 4}}));
  EXPECT_THAT(out.str(), HasSubstr("Variable containing:"));
  EXPECT_THAT(out.str(), HasSubstr("[f32 tensor of size 2x2]"));
}

}  // namespace
}  // namespace millrace
