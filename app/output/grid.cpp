#include "app/output/grid.h"

#include <algorithm>
#include <opencv2/core.hpp>
#include <opencv2/imgproc.hpp>
#include <png.h>

#include "base/new_file.h"

namespace millrace::app {

namespace {

constexpr int kColumns = 8, kRows = 4;
constexpr int kImage = 112, kText = 17, kGap = 8;  // pixels
constexpr int kCellWidth = kImage + kGap, kCellHeight = kImage + 2 * kText + kGap;

/// Image i of a normalized batch as BGR bytes.
cv::Mat3b to_picture(const Tensor& images, std::int64_t i, const ModelDescription& model) {
  const auto height = static_cast<int>(images.size(2)), width = static_cast<int>(images.size(3));
  const auto channels = static_cast<std::size_t>(images.size(1));
  const auto of_channel = [](const std::vector<float>& values, std::size_t c) {
    return values[std::min(c, values.size() - 1)];
  };
  cv::Mat3b picture(height, width);
  for (int y = 0; y < height; ++y) {
    for (int x = 0; x < width; ++x) {
      for (std::size_t bgr = 0; bgr < 3; ++bgr) {
        const std::size_t c = channels == 3 ? 2 - bgr : 0;
        const double value = images.at({i, static_cast<std::int64_t>(c), y, x});
        picture(y, x)[static_cast<int>(bgr)] = cv::saturate_cast<unsigned char>(
            255 * (value * of_channel(model.std, c) + of_channel(model.mean, c)));
      }
    }
  }
  return picture;
}

/// One line of text, shrunk until it fits the cell.
void write_text(cv::Mat3b& canvas, const std::string& text, cv::Point bottom_left, const cv::Scalar& colour) {
  constexpr int kFont = cv::FONT_HERSHEY_SIMPLEX;
  double scale = 0.45;
  const int width = cv::getTextSize(text, kFont, scale, 1, nullptr).width;
  scale *= std::min(1.0, static_cast<double>(kImage) / std::max(width, 1));
  cv::putText(canvas, text, bottom_left, kFont, scale, colour, 1, cv::LINE_AA);
}

void write_png(const std::filesystem::path& path, const cv::Mat3b& picture) {
  png_image image{};
  image.version = PNG_IMAGE_VERSION;
  image.width = static_cast<png_uint_32>(picture.cols);
  image.height = static_cast<png_uint_32>(picture.rows);
  image.format = PNG_FORMAT_BGR;
  png_alloc_size_t size = PNG_IMAGE_PNG_SIZE_MAX(image);
  std::vector<unsigned char> png(size);
  if (png_image_write_to_memory(&image, png.data(), &size, 0, picture.data, 0, nullptr) == 0) {
    throw MachineError("cannot write {}: {}", path.string(), image.message);
  }
  NewFile file(path);
  file.write(png.data(), size);
  file.commit();
}

}  // namespace

void draw_grid(const std::filesystem::path& path, nn::Module& net, const ModelDescription& model,
               std::shared_ptr<const Dataset> data) {
  const std::int64_t samples = std::min<std::int64_t>(kColumns * kRows, data->size());
  LoaderOptions options;
  options.batch_size = samples;
  options.transforms = model.transforms;
  options.mean = model.mean;
  options.std = model.std;
  options.threads = 1;
  options.seed = 1;                        // shuffled, so that all classes are seen
  options.bad_samples = BadSamples::mask;  // the evaluation has told of them
  options.max_bad_rate = 1;
  options.on_bad_sample = [](const BadSample&) {};
  Loader loader{std::move(data), options};
  Loader::Epoch epoch = loader.epoch(0);
  const Batch& batch = *epoch.begin();
  net.eval();
  const NoGradScope no_grad;
  const Tensor predicted = argmax(net(batch.images()).data(), 1);
  const Tensor images = batch.images(), labels = batch.labels();

  cv::Mat3b canvas(kGap + kRows * kCellHeight, kGap + kColumns * kCellWidth, cv::Vec3b(255, 255, 255));
  for (std::int64_t i = 0; i < batch.valid(); ++i) {
    const cv::Point corner(kGap + static_cast<int>(i) % kColumns * kCellWidth,
                           kGap + static_cast<int>(i) / kColumns * kCellHeight);
    cv::Mat3b place = canvas(cv::Rect(corner, cv::Size(kImage, kImage)));
    cv::resize(to_picture(images, i, model), place, place.size(), 0, 0, cv::INTER_NEAREST);
    const auto truth = static_cast<std::size_t>(labels.at({i})),
               guess = static_cast<std::size_t>(predicted.at({i}));
    write_text(canvas, model.classes[truth], corner + cv::Point(0, kImage + kText - 4), cv::Scalar(0, 0, 0));
    write_text(canvas, model.classes[guess], corner + cv::Point(0, kImage + 2 * kText - 4),
               truth == guess ? cv::Scalar(0, 140, 0) : cv::Scalar(0, 0, 220));
  }
  write_png(path, canvas);
}

}  // namespace millrace::app
