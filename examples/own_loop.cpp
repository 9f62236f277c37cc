// The loader with a training loop, or a whole framework, of one's own: batches as tensors and as OpenCV
// matrices without a copy, and a state that a later process goes on from. Run it as `own_loop`, or as
// `own_loop KIND:WHERE`.
#include <cstdio>
#include <cstdlib>
#include <millrace/millrace.h>
#include <millrace/pipeline/image/opencv_bridge.h>

using namespace millrace;

/// Ends the program where what the text claims is not so.
void expect(bool holds, const char* claim) {
  if (!holds) {
    std::fprintf(stderr, "own_loop: not so: %s\n", claim);
    std::exit(1);
  }
}

/// What somebody's own loop does with a batch.
void look_at(const Batch& batch, std::vector<int>& seen) {
  const Tensor images = batch.images(), labels = batch.labels(), ids = batch.ids();
  expect(images.raw() == batch.shard(0).field("image").raw(), "the tensor is the loader's own memory");
  for (std::int64_t i = 0; i < batch.valid(); ++i) {
    const cv::Mat image = to_mat(images[i]);  // height x width, RGB, 8 bits a channel
    expect(reinterpret_cast<std::byte*>(image.data) == images[i].raw(), "and so is the matrix");
    expect(image.rows == images.shape()[2] && image.channels() == images.shape()[1], "of the image's size");
    ++seen[static_cast<std::size_t>(ids.at({i}))];
  }
}

int main(int argc, char** argv) {
  const std::shared_ptr<const Dataset> data = open_dataset(argc > 1 ? argv[1] : "synthetic:1000");
  LoaderOptions options{.batch_size = 64,
                        .transforms = "random_resized_crop:24,horizontal_flip",
                        .dtype = DType::u8,
                        .tail = Tail::pad,
                        .threads = 2};
  std::vector<int> seen(static_cast<std::size_t>(data->size()));

  // A first process takes the first half of an epoch and keeps its state: fewer than 100 bytes.
  std::array<std::byte, LoaderState::kBytes> kept{};
  {
    Loader loader(data, options);
    for (const Batch& batch : loader.epoch(0)) {
      look_at(batch, seen);
      if (2 * (batch.step() + 1) >= loader.steps_per_epoch()) {
        kept = loader.state().to_bytes();
        break;
      }
    }
  }  // what it had prepared beyond that is gone, and was never counted

  // A second one, with other threads and slabs, goes on with exactly the samples that are left.
  options.threads = 1;
  options.slabs = 5;
  Loader loader(data, options);
  loader.restore(LoaderState::from_bytes(kept));
  for (const Batch& batch : loader.epoch(0)) {
    look_at(batch, seen);
  }
  for (const int times : seen) {
    expect(times == 1, "each sample came exactly once");
  }
  std::printf("each of %zu samples came exactly once\n%s\n", seen.size(),
              loader.statistics().verdict().c_str());
}
