// PyTorch's "60 minute blitz", section by section: tensors, autograd, networks, and a classifier trained with
// a loop written by hand. Run it as `blitz`, or on real images as `blitz cifar10:DIR`.
#include <cstdio>
#include <iostream>
#include <millrace/millrace.h>

using namespace millrace;

void tensors() {
  Generator random(1);
  const Tensor x = rand({5, 3}, random);
  std::cout << x << "\n" << x.shape().to_string() << "\n";

  // Four ways to add.
  Tensor y = rand({5, 3}, random), result = empty({5, 3});
  std::cout << x + y << "\n";
  std::cout << add(x, y) << "\n";
  add(x, y, result);  // into a tensor of one's own
  y.add_(x);          // a trailing _ changes the tensor in place
  std::cout << (all_close(y, result) ? "all the same\n" : "not the same\n");

  std::cout << x.slice(1, 1, 2) << "\n";              // a column: a view, nothing is copied
  std::cout << x.view({15}).narrow(0, 0, 4) << "\n";  // so is another shape
  std::cout << matmul(x.t(), y) << "\n";              // [3, 5] x [5, 3]
  std::cout << mean(x, {.dims = {0}}) << "\n";        // options go by name

  // The bridge: a tensor and a vector share memory, so a change of one is a change of the other.
  std::vector<float> a(5, 1.0f);
  Tensor b = from_blob(a.data(), {5});
  for (float& number : a) {
    number += 1;
  }
  std::cout << b << "\n";
  b.mul_(10);
  std::cout << a[4] << "\n\n";
}

void automatic_differentiation() {
  const Variable x(ones({2, 2}), /*requires_grad=*/true);
  const Variable y = x + 2;
  std::cout << y << "\n" << y.creator()->name() << "\n";  // the result of an operation has a creator
  const Variable out = mean(y * y * 3);
  out.backward();
  std::cout << x.grad() << "\n";  // d(out)/dx = 4.5

  // The graph is what the program did: a loop may run a different number of times each pass.
  const Variable start(randn({3}, nn::default_generator()), true);
  Variable doubled = start * 2;
  while (sqrt(sum(pow(doubled, 2))).item() < 1000) {
    doubled = doubled * 2;
  }
  doubled.backward(tensor({0.1, 1.0, 0.0001}));  // not a scalar: it needs the gradient of the result
  std::cout << start.grad() << "\n\n";
}

struct Net : nn::Module {
  nn::Conv2d conv1, conv2{6, 16, {.kernel = 5}};
  nn::Linear fc1{16 * 5 * 5, 120}, fc2{120, 84}, fc3{84, 10};

  explicit Net(int channels) : conv1(channels, 6, {.kernel = 5}) {
    add("conv1", conv1), add("conv2", conv2);
    add("fc1", fc1), add("fc2", fc2), add("fc3", fc3);
  }
  Variable forward(const Variable& image) override {
    Variable x = max_pool2d(relu(conv1(image)), {.kernel = {2, 2}});
    x = max_pool2d(relu(conv2(x)), {.kernel = 2});  // one number stands for a square
    return fc3(relu(fc2(relu(fc1(flatten(x))))));
  }
};

void networks() {
  Net net(1);
  std::cout << net << "\n";
  const std::vector<Variable> parameters = net.parameters();
  std::cout << parameters.size() << " " << parameters[0].shape().to_string() << "\n";  // conv1's weight

  const Variable input = randn({1, 1, 32, 32}, nn::default_generator());
  std::cout << net(input) << "\n";
  net.zero_grad();
  net(input).backward(randn({1, 10}, nn::default_generator()));

  // A loss, and the graph that it ends: input -> conv2d -> relu -> ... -> linear -> mse_loss.
  const Variable target = arange(1, 11).view({1, 10});
  const nn::MSELoss criterion;
  const Variable loss = criterion(net(input), target);
  std::cout << loss << "\n";
  const auto linear = loss.creator()->previous_functions()[0];
  std::cout << loss.creator()->name() << " <- " << linear->name() << " <- "
            << linear->previous_functions()[0]->name() << "\n";

  net.zero_grad();  // gradients add up until they are zeroed
  std::cout << "conv1.bias.grad before backward:\n" << net.conv1.bias.grad() << "\n";
  loss.backward();
  std::cout << "conv1.bias.grad after backward:\n" << net.conv1.bias.grad() << "\n";

  // The update by hand: weight = weight - learning_rate * gradient ...
  for (const Variable& parameter : net.parameters()) {
    parameter.data().sub_(parameter.grad(), 0.01);
  }
  // ... or by an optimizer.
  nn::Sgd optimizer(net, {.learning_rate = 0.01});
  optimizer.zero_grad();
  const Variable next = criterion(net(input), target);
  next.backward();
  optimizer.step();
  std::cout << "loss " << loss.item() << ", then " << next.item() << ", then "
            << criterion(net(input), target).item() << "\n\n";
}

void print_classes(const char* title, const Tensor& labels, const std::vector<std::string>& classes) {
  std::printf("%-11s:", title);
  for (std::int64_t i = 0; i < labels.numel(); ++i) {
    std::printf(" %10s", classes[static_cast<std::size_t>(labels.at({i}))].c_str());
  }
  std::printf("\n");
}

/// How the network does on images it never saw: the share that it gets right.
double accuracy_on(Loader& test, Net& net) {
  const std::vector<std::string>& classes = test.dataset().info().classes;
  net.eval();
  const NoGradScope no_grad;
  std::vector<int> correct(classes.size()), total(classes.size());
  int all_correct = 0, all = 0;
  for (const Batch& batch : test.epoch(0)) {
    const Tensor labels = batch.labels(), predicted = argmax(net(batch.images()).data(), 1);
    if (batch.step() == 0) {
      print_classes("GroundTruth", labels, classes);
      print_classes("Predicted", predicted, classes);
    }
    const Tensor right = equal(predicted, labels);
    for (std::int64_t i = 0; i < batch.valid(); ++i) {
      const auto label = static_cast<std::size_t>(labels.at({i}));
      correct[label] += static_cast<int>(right.at({i}));
      total[label] += 1;
    }
    all_correct += static_cast<int>(sum(right).item());
    all += static_cast<int>(batch.valid());
  }
  std::printf("Accuracy of the network on the %d test images: %d %%\n", all, 100 * all_correct / all);
  for (std::size_t i = 0; i < classes.size(); ++i) {
    if (total[i] > 0) {
      std::printf("Accuracy of %10s : %2d %%\n", classes[i].c_str(), 100 * correct[i] / total[i]);
    }
  }
  return static_cast<double>(all_correct) / all;
}

/// Trains on `name`; the share of the test images that the network then gets right.
double classifier(const std::string& name) {
  // 1. Images come in batches of 4, normalized to [-1, 1], in an order of their own each epoch.
  Loader train(open_dataset(name), {.batch_size = 4, .epochs = 2});
  Loader test(open_dataset(name, {.train = false}),
              {.batch_size = 4, .order = {Order::sequential}, .tail = Tail::pad});

  // 2, 3. The network, the loss and the optimizer.
  Net net(3);
  const nn::CrossEntropyLoss criterion;
  nn::Sgd optimizer(net, {.learning_rate = 0.001, .momentum = 0.9});

  // 4. Two passes over the data.
  for (int epoch = 0; epoch < 2; ++epoch) {
    double running_loss = 0;
    for (const Batch& batch : train.epoch(epoch)) {
      optimizer.zero_grad();
      const Variable loss = criterion(net(batch.images()), batch.labels());
      loss.backward();
      optimizer.step();
      running_loss += loss.item();
      if (batch.step() % 2000 == 1999) {
        std::printf("[%d, %5d] loss: %.3f\n", epoch + 1, static_cast<int>(batch.step() + 1),
                    running_loss / 2000);
        running_loss = 0;
      }
    }
  }

  // 5. The test.
  return accuracy_on(test, net);
}

int main(int argc, char** argv) {
  nn::manual_seed(0);
  tensors();
  automatic_differentiation();
  networks();
  return classifier(argc > 1 ? argv[1] : "synthetic:20000") > 0.3 ? 0 : 1;  // guessing gives 0.1
}
