#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <fmt/core.h>
#include <numeric>
#include <optional>

#include "app/commands.h"
#include "app/options.h"
#include "dataio/file.h"
#include "dataio/formats/encoding.h"

namespace millrace::app {

namespace {

/// Named image files, all of one unknown class.
class GivenImages : public Dataset {
 public:
  GivenImages(std::vector<std::string> paths, int channels) : paths_(std::move(paths)) {
    info_.channels = channels;
    info_.classes = {"unknown"};
  }
  std::int64_t size() const override { return static_cast<std::int64_t>(paths_.size()); }
  const DatasetInfo& info() const override { return info_; }
  std::string describe(std::int64_t index) const override { return paths_[static_cast<std::size_t>(index)]; }

  Sample read(std::int64_t index, std::vector<std::byte>& scratch) const override {
    const DataFile file(describe(index), Reading::read);
    const auto bytes = file.read(0, file.size(), scratch);
    const std::optional<Encoding> encoding = encoding_of(bytes);
    if (!encoding) {
      throw InputError("{}: neither a JPEG nor a PNG file; convert it first", describe(index));
    }
    return {.bytes = bytes, .encoding = *encoding};
  }

 private:
  std::vector<std::string> paths_;
  DatasetInfo info_;
};

/// The evaluation's transforms, with a resize in front where they leave the size as it is: photographs come
/// in all sizes.
std::string any_size_transforms(const ModelDescription& model) {
  for (const char* resizing : {"resize:", "center_crop:"}) {
    if (model.transforms.find(resizing) != std::string::npos) {
      return model.transforms;
    }
  }
  return fmt::format("resize:{}x{},{}", model.height, model.width, model.transforms);
}

void print_best(const std::string& path, const Tensor& probabilities,
                const std::vector<std::string>& classes) {
  std::vector<std::size_t> order(classes.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  const float* p = probabilities.data<float>();
  std::stable_sort(order.begin(), order.end(), [p](std::size_t a, std::size_t b) { return p[a] > p[b]; });
  order.resize(std::min<std::size_t>(order.size(), 5));
  std::size_t width = 0;
  for (const std::size_t i : order) {
    width = std::max(width, classes[i].size());
  }
  fmt::print("{}\n", path);
  for (const std::size_t i : order) {
    fmt::print("  {:{}}  {:6.2f} %\n", classes[i], width, 100 * p[i]);
  }
}

void predict(const std::filesystem::path& weights, const std::vector<std::string>& images,
             std::string_view device_name, int threads) {
  const Device device = Device::parse(device_name);
  const LoadedModel model = load_model(weights);
  LoaderOptions options;
  options.batch_size = std::min<std::int64_t>(64, static_cast<std::int64_t>(images.size()));
  options.transforms = any_size_transforms(model.description);
  options.mean = model.description.mean;
  options.std = model.description.std;
  options.order.kind = Order::sequential;
  options.tail = Tail::pad;
  options.threads = threads;
  Loader loader{std::make_shared<GivenImages>(images, model.description.channels), options};
  const Shape expected{model.description.channels, model.description.height, model.description.width};
  if (!(loader.image_shape() == expected)) {
    throw InputError("{}: the image becomes {}, {} expects {}", images[0], loader.image_shape(),
                     weights.string(), expected);
  }
  model.net->to(device);
  model.net->eval();
  const NoGradScope no_grad;
  std::size_t done = 0;
  for (const Batch& batch : loader.epoch(0)) {
    const Tensor probabilities = softmax((*model.net)(batch.images().to(device)), 1).data().to(kCpu);
    for (std::int64_t i = 0; i < batch.valid(); ++i) {
      if (std::isnan(probabilities.at({i, 0}))) {
        throw InputError(
            "{}: gives no numbers for {}; its training went astray, train again with a smaller --lr",
            weights.string(), images[done]);
      }
      print_best(images[done++], probabilities[i], model.description.classes);
    }
  }
}

}  // namespace

void add_predict(CLI::App& app) {
  struct Options {
    std::filesystem::path weights;
    std::vector<std::string> images;
    std::string device = "cpu";
    int threads = 0;
  };
  auto options = std::make_shared<Options>();
  CLI::App& command =
      *app.add_subcommand("predict", "Name what is on images: the five likeliest classes of each");
  command.add_option("--weights", options->weights, "A file that train --save wrote")->required();
  command.add_option("IMAGE", options->images, "JPEG or PNG files")->required();
  command.add_option("--device", options->device, "cpu, cuda or cuda:N");
  command.add_option("--threads", options->threads, "Loader workers (0: this process's cores)")
      ->check(whole_number(0));
  command.callback(
      [options] { predict(options->weights, options->images, options->device, options->threads); });
}

}  // namespace millrace::app
