#include <cstdlib>
#include <map>
#include <set>
#include <zlib.h>

#include "sample_files.h"
#include "tests/base/temporary_folder.h"

namespace millrace {
namespace {

using test::open_error;
using test::read_error;
using test::TemporaryFolder;
using test::text;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

TEST(OpenDataset, UnknownKindsAreNamedWithTheKnownOnes) {
  EXPECT_THAT(open_error("folder"), AllOf(HasSubstr("'folder'"), HasSubstr("synthetic:N")));
  EXPECT_THAT(open_error("zip:x"), AllOf(HasSubstr("'zip'"), HasSubstr("images:DIR")));
  EXPECT_THAT(open_error("idx:"), HasSubstr("'idx:' says no place"));
}

// CIFAR-10
// ---------------------------------------------------------------------------------------------------------

std::string cifar_record(int label, char pixel) {
  return std::string(1, static_cast<char>(label)) + std::string(1024, pixel) +
         std::string(2048, static_cast<char>(pixel + 1));
}

void write_cifar(const TemporaryFolder& folder, const std::string& prefix = "") {
  for (int batch = 1; batch <= 5; ++batch) {
    folder.write(prefix + "data_batch_" + std::to_string(batch) + ".bin",
                 cifar_record(batch, static_cast<char>(10 * batch)) +
                     cifar_record(9, static_cast<char>(10 * batch + 5)));
  }
  folder.write(prefix + "test_batch.bin", cifar_record(0, 'a') + cifar_record(1, 'b') + cifar_record(2, 'c'));
}

TEST(Cifar10, ReadsTheBatchesInOrder) {
  for (const std::string prefix : {"", "cifar-10-batches-bin/"}) {
    TemporaryFolder folder;
    write_cifar(folder, prefix);
    const auto train = open_dataset("cifar10:" + folder.path());
    ASSERT_EQ(train->size(), 10);
    EXPECT_EQ(train->info().height, 32);
    EXPECT_EQ(train->info().width, 32);
    EXPECT_EQ(train->info().channels, 3);
    EXPECT_EQ(train->info().classes.size(), 10u);
    EXPECT_EQ(train->info().classes[9], "truck");
    std::vector<std::byte> scratch;
    const Sample sample = train->read(7, scratch);
    EXPECT_EQ(sample.label, 9);
    EXPECT_EQ(sample.encoding, Encoding::raw_chw);
    EXPECT_EQ(text(sample), cifar_record(9, 45).substr(1));
    EXPECT_EQ(train->read(6, scratch).label, 4);
    EXPECT_THAT(train->describe(7), testing::EndsWith("data_batch_4.bin, record 1"));
    EXPECT_EQ(open_dataset("cifar10:" + folder.path(), {.train = false})->size(), 3);
  }
}

TEST(Cifar10, TakesClassNamesFromItsMetaFile) {
  TemporaryFolder folder;
  write_cifar(folder);
  folder.write("batches.meta.txt", "a\nb\nc\nd\r\ne\nf\ng\nh\ni\nj\n\n");
  EXPECT_THAT(open_dataset("cifar10:" + folder.path())->info().classes,
              ElementsAre("a", "b", "c", "d", "e", "f", "g", "h", "i", "j"));
  folder.write("batches.meta.txt", "a\nb\n");
  EXPECT_THAT(open_error("cifar10:" + folder.path()),
              AllOf(HasSubstr("batches.meta.txt names 2"), HasSubstr("expected 10")));
  std::filesystem::remove(folder.path("batches.meta.txt"));
  folder.make_pipe("batches.meta.txt");
  const test::TimeLimit limit;
  EXPECT_THAT(open_error("cifar10:" + folder.path()), HasSubstr("batches.meta.txt: it is no regular file"));
}

TEST(Cifar10, DamagedFilesAreNamed) {
  TemporaryFolder folder;
  EXPECT_THAT(open_error("cifar10:" + folder.path()),
              AllOf(HasSubstr("data_batch_1.bin"), HasSubstr(folder.path())));
  write_cifar(folder);
  folder.write("data_batch_3.bin", cifar_record(3, 'x') + cifar_record(3, 'y').substr(0, 3000));
  EXPECT_THAT(open_error("cifar10:" + folder.path()),
              AllOf(HasSubstr("data_batch_3.bin has 6073 bytes"), HasSubstr("multiple of 3073"),
                    HasSubstr("30730000")));
  folder.write("data_batch_3.bin", cifar_record(3, 'x'));  // cut at a record's end
  EXPECT_THAT(open_error("cifar10:" + folder.path()),
              AllOf(HasSubstr("data_batch_3.bin has 3073"), HasSubstr("6146")));
  folder.write("data_batch_3.bin", "");
  EXPECT_THAT(open_error("cifar10:" + folder.path()), HasSubstr("data_batch_3.bin has 0 bytes"));
  std::filesystem::remove(folder.path("data_batch_3.bin"));
  EXPECT_THAT(open_error("cifar10:" + folder.path()), HasSubstr("data_batch_3.bin"));
  folder.write("data_batch_3.bin", cifar_record(3, 'x') + cifar_record(10, 'y'));
  const auto dataset = open_dataset("cifar10:" + folder.path());
  EXPECT_THAT(read_error(*dataset, 5),
              AllOf(HasSubstr("data_batch_3.bin, record 1"), HasSubstr("label 10"), HasSubstr("0 to 9")));
}

// idx
// --------------------------------------------------------------------------------------------------------------

std::string big_endian(std::uint32_t value) {
  return {static_cast<char>(value >> 24), static_cast<char>(value >> 16), static_cast<char>(value >> 8),
          static_cast<char>(value)};
}

std::string idx_images(std::uint32_t count) {
  std::string bytes = big_endian(0x803) + big_endian(count) + big_endian(2) + big_endian(3);
  for (std::uint32_t i = 0; i < count * 6; ++i) {
    bytes.push_back(static_cast<char>(i));
  }
  return bytes;
}

std::string idx_labels(const std::string& labels) {
  return big_endian(0x801) + big_endian(static_cast<std::uint32_t>(labels.size())) + labels;
}

void write_gzipped(const TemporaryFolder& folder, const std::string& name, const std::string& bytes) {
  const gzFile file = gzopen(folder.path(name).c_str(), "wb");
  ASSERT_NE(file, nullptr);
  ASSERT_EQ(gzwrite(file, bytes.data(), static_cast<unsigned>(bytes.size())), static_cast<int>(bytes.size()));
  ASSERT_EQ(gzclose(file), Z_OK);
}

TEST(Idx, ReadsPlainAndGzippedFiles) {
  TemporaryFolder folder;
  folder.write("train-images-idx3-ubyte", idx_images(3));
  folder.write("train-labels-idx1-ubyte", idx_labels({7, 0, 9}));
  write_gzipped(folder, "t10k-images-idx3-ubyte.gz", idx_images(2));
  write_gzipped(folder, "t10k-labels-idx1-ubyte.gz", idx_labels({1, 2}));
  const auto train = open_dataset("idx:" + folder.path()),
             test = open_dataset("idx:" + folder.path(), {.train = false});
  ASSERT_EQ(train->size(), 3);
  ASSERT_EQ(test->size(), 2);
  std::vector<std::byte> scratch;
  for (const auto& dataset : {train.get(), test.get()}) {
    EXPECT_EQ(dataset->info().height, 2);
    EXPECT_EQ(dataset->info().width, 3);
    EXPECT_EQ(dataset->info().channels, 1);
    const Sample sample = dataset->read(1, scratch);
    EXPECT_EQ(text(sample), std::string({6, 7, 8, 9, 10, 11}));
    EXPECT_EQ(sample.encoding, Encoding::raw_hwc);
    EXPECT_EQ(sample.channels, 1);
    EXPECT_EQ(sample.label, dataset == train.get() ? 0 : 2);
  }
  EXPECT_EQ(train->info().classes[3], "3");
}

TEST(Idx, GzippedFilesHaveTheFingerprintOfPlainOnes) {
  TemporaryFolder folder;
  const auto of = [&] { return open_dataset("idx:" + folder.path())->fingerprint(); };
  folder.write("train-images-idx3-ubyte", idx_images(3));
  folder.write("train-labels-idx1-ubyte", idx_labels({7, 0, 9}));
  const std::uint64_t plain = of();
  for (const std::string name : {"train-images-idx3-ubyte", "train-labels-idx1-ubyte"}) {
    std::filesystem::remove(folder.path(name));
  }
  write_gzipped(folder, "train-images-idx3-ubyte.gz", idx_images(3));
  write_gzipped(folder, "train-labels-idx1-ubyte.gz", idx_labels({7, 0, 9}));
  EXPECT_EQ(of(), plain);
}

TEST(Idx, FashionIsKnownByItsFolder) {
  TemporaryFolder folder;
  folder.write("Fashion-MNIST/train-images-idx3-ubyte", idx_images(1));
  folder.write("Fashion-MNIST/train-labels-idx1-ubyte", idx_labels({1}));
  EXPECT_EQ(open_dataset("idx:" + folder.path("Fashion-MNIST"))->info().classes[9], "Ankle boot");
}

TEST(Idx, DamagedFilesAreNamed) {
  TemporaryFolder folder;
  const std::string images = "train-images-idx3-ubyte", labels = "train-labels-idx1-ubyte";
  const auto error = [&] { return open_error("idx:" + folder.path()); };
  EXPECT_THAT(error(), AllOf(HasSubstr(images + ".gz"), HasSubstr(folder.path())));
  folder.write(images, idx_images(3));
  EXPECT_THAT(error(), HasSubstr(labels));
  folder.write(labels, idx_labels({1, 2}));
  EXPECT_THAT(error(), AllOf(HasSubstr("3 images"), HasSubstr("2 labels")));
  folder.write(labels, idx_labels({1, 10, 2}));
  EXPECT_THAT(error(), AllOf(HasSubstr(labels + ", record 1"), HasSubstr("label 10"), HasSubstr("0 to 9")));
  folder.write(images, idx_images(3).substr(0, 25));
  EXPECT_THAT(error(),
              AllOf(HasSubstr(images + " has 9 bytes"), HasSubstr("expected 18"), HasSubstr("truncated")));
  folder.write(images, idx_images(3) + "x");
  EXPECT_THAT(error(), AllOf(HasSubstr(images), HasSubstr("more than the 18 bytes")));
  folder.write(images, idx_images(3).substr(0, 10));
  EXPECT_THAT(error(), AllOf(HasSubstr(images), HasSubstr("header")));
  folder.write(images, "not an idx file");
  EXPECT_THAT(error(), AllOf(HasSubstr("0x6e6f7420"), HasSubstr("0x00000803")));
  folder.write(images, big_endian(0x803) + big_endian(0) + big_endian(28) + big_endian(28));
  EXPECT_THAT(error(), HasSubstr("impossible size"));
  folder.write(images, big_endian(0x803) + std::string(12, '\xFF') + "abc");  // 2^96 bytes of values
  EXPECT_THAT(error(), HasSubstr("impossible size"));
  folder.write(images, big_endian(0x803) + std::string(8, '\x7F') + big_endian(1) +
                           "abc");  // 2^62, not to be allocated
  EXPECT_THAT(error(), HasSubstr("truncated"));
  std::filesystem::remove(folder.path(images));
  folder.make_pipe(images);
  const test::TimeLimit limit;
  EXPECT_THAT(error(), AllOf(HasSubstr(images + ".gz is a file"), HasSubstr(folder.path())));
}

TEST(Idx, DamagedGzipFilesAreNamed) {
  TemporaryFolder folder;
  const std::string images = "train-images-idx3-ubyte.gz";
  folder.write("train-labels-idx1-ubyte", idx_labels(std::string(500, 1)));
  write_gzipped(folder, images, idx_images(500));
  EXPECT_EQ(open_dataset("idx:" + folder.path())->size(), 500);
  std::string bytes(std::filesystem::file_size(folder.path(images)), ' ');
  std::ifstream(folder.path(images), std::ios::binary)
      .read(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  folder.write(images, bytes.substr(0, bytes.size() - 20));
  EXPECT_THAT(open_error("idx:" + folder.path()), AllOf(HasSubstr(images), HasSubstr("damaged")));
  bytes[bytes.size() - 6] ^= 1;  // within the check sum
  folder.write(images, bytes);
  EXPECT_THAT(open_error("idx:" + folder.path()), AllOf(HasSubstr(images), HasSubstr("damaged")));
}

// synthetic
// --------------------------------------------------------------------------------------------------------

TEST(Synthetic, IsBalancedSeededAndTheSameEverywhere) {
  const auto train = open_dataset("synthetic:2000"), again = open_dataset("synthetic:2000");
  const auto shorter = open_dataset("synthetic:1000"),
             test = open_dataset("synthetic:2000", {.train = false});
  EXPECT_EQ(train->info().classes.size(), 10u);
  std::vector<std::byte> scratch;
  std::map<std::int64_t, int> counts;
  std::set<std::string> images;
  std::uint32_t check = crc32(0, nullptr, 0);
  for (std::int64_t i = 0; i < train->size(); ++i) {
    const Sample sample = train->read(i, scratch);
    ASSERT_EQ(sample.bytes.size(), 3072u);
    EXPECT_EQ(text(sample), text(again->read(i, scratch)));
    if (i < 1000) {
      EXPECT_EQ(text(sample), text(shorter->read(i, scratch)));
    }
    ++counts[sample.label];
    images.insert(text(sample));
    images.insert(text(test->read(i, scratch)));
    check =
        static_cast<std::uint32_t>(crc32(check, reinterpret_cast<const Bytef*>(sample.bytes.data()), 3072));
  }
  EXPECT_EQ(images.size(), 4000u) << "an image is there twice, or in both sets";
  for (std::int64_t label = 0; label < 10; ++label) {
    EXPECT_EQ(counts[label], 200);
  }
  EXPECT_EQ(check, 552980880u) << "the drawing changed: every accuracy quoted for synthetic: changes with it";
}

TEST(Synthetic, SizesThatAreNoneAreNamed) {
  for (const std::string size : {"0", "-3", "12x", "many", "99999999999999999999"}) {
    EXPECT_THAT(open_error("synthetic:" + size), HasSubstr("'" + size + "'"));
  }
}

// Real data, where there is some
// -----------------------------------------------------------------------------------

TEST(RealData, OpensWhatIsUnderMillraceData) {
  const char* root = std::getenv("MILLRACE_DATA");
  if (root == nullptr) {
    GTEST_SKIP() << "MILLRACE_DATA is not set";
  }
  const std::filesystem::path data = root;
  std::vector<std::string> names;
  if (std::filesystem::exists(data / "cifar-10-batches-bin")) {
    names.push_back("cifar10:" + data.string());
  }
  if (std::filesystem::exists(data / "cifar10-jpeg/train")) {
    names.push_back("images:" + (data / "cifar10-jpeg/train").string());
  }
  if (names.empty()) {
    GTEST_SKIP() << "neither cifar-10-batches-bin nor cifar10-jpeg in " << data;
  }
  for (const std::string& name : names) {
    const auto dataset = open_dataset(name);
    EXPECT_EQ(dataset->size(), 50000) << name;
    EXPECT_EQ(dataset->info().classes.size(), 10u);
    std::vector<std::byte> scratch;
    std::map<std::int64_t, int> counts;
    for (std::int64_t i = 0; i < dataset->size(); ++i) {
      ++counts[dataset->read(i, scratch).label];
    }
    for (std::int64_t label = 0; label < 10; ++label) {
      EXPECT_EQ(counts[label], 5000) << name;
    }
  }
}

}  // namespace
}  // namespace millrace
