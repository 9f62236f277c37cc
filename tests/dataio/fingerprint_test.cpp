#include <limits>
#include <set>

#include "base/hash.h"
#include "dataio/subset.h"
#include "tests/dataio/formats/sample_files.h"
#include "tests/dataio/formats/tar_writer.h"

namespace millrace {
namespace {

using test::tar_end;
using test::tar_member;
using test::TemporaryFolder;

std::uint64_t of(const std::string& name) { return open_dataset(name)->fingerprint(); }

/// Samples that count how often they are read; `label` reads as well, by default.
class Counted : public Dataset {
 public:
  explicit Counted(std::int64_t size, std::int64_t unreadable = -1) : size_(size), unreadable_(unreadable) {}
  std::int64_t size() const override { return size_; }
  const DatasetInfo& info() const override { return info_; }
  Sample read(std::int64_t index, std::vector<std::byte>& scratch) const override {
    ++reads;
    read_.insert(index);
    if (index == unreadable_) {
      throw InputError("sample {} is damaged", index);
    }
    scratch.assign(8, static_cast<std::byte>(index));
    return {.bytes = scratch, .height = 2, .width = 4, .channels = 1, .label = index % 3};
  }
  std::string describe(std::int64_t index) const override { return std::to_string(index); }

  mutable int reads = 0;
  mutable std::set<std::int64_t> read_;

 private:
  std::int64_t size_, unreadable_;
  DatasetInfo info_;
};

TEST(Fingerprint, ReadsSixteenSamplesAtMostSpreadEvenly) {
  for (const std::int64_t size : {std::int64_t{1}, std::int64_t{5}, std::int64_t{16}, std::int64_t{17},
                                  std::int64_t{1000}, std::numeric_limits<std::int64_t>::max()}) {
    const Counted data(size);
    EXPECT_EQ(data.fingerprint(), Counted(size).fingerprint());
    EXPECT_EQ(data.reads, std::min<std::int64_t>(size, 16)) << size;
    EXPECT_EQ(std::ssize(data.read_), data.reads) << "each once";
    std::int64_t before = 0;
    for (const std::int64_t place : data.read_) {
      EXPECT_LE(place - before, size / 16 + 1) << size;
      before = place;
    }
    EXPECT_GE(before, size - 1 - size / 16) << size;
    EXPECT_EQ(*data.read_.begin(), 0);
  }
}

TEST(Fingerprint, IsThereWhereASampleCannotBeRead) {
  const Counted whole(100), damaged(100, 50);
  EXPECT_EQ(damaged.fingerprint(), Counted(100, 50).fingerprint());
  EXPECT_NE(damaged.fingerprint(), whole.fingerprint());
  EXPECT_EQ(damaged.reads, 32) << "50 is one of the 16";
}

TEST(Fingerprint, IsFrozenInEachVersion) {
  const auto data = open_dataset("synthetic:100");
  EXPECT_EQ(data->fingerprint(1), 0xE3005A4B66580F08u);
  EXPECT_EQ(data->fingerprint(2), 0x85AB41B433AEAF7Au);
  const Subset part(open_dataset("synthetic:100"), {4, 2});
  for (const int version : {1, 2}) {
    EXPECT_EQ(part.fingerprint(version),
              Hash().add(static_cast<std::int64_t>(data->fingerprint(version))).add(2).add(4).add(2).value());
  }
}

// CIFAR-10 and MNIST

std::string cifar_file(int labels_from, char pixel) {
  std::string bytes;
  for (int i = 0; i < 4; ++i) {
    bytes += static_cast<char>((labels_from + i) % 10) + std::string(3072, static_cast<char>(pixel + i));
  }
  return bytes;
}

void write_cifar(const TemporaryFolder& folder, const std::string& name) {
  for (int i = 1; i <= 5; ++i) {
    folder.write(name + "/data_batch_" + std::to_string(i) + ".bin",
                 cifar_file(i, static_cast<char>(10 * i)));
  }
}

TEST(Fingerprint, TellsCifarFilesOfOneSizeApart) {
  TemporaryFolder folder;
  for (const std::string name : {"here", "there", "other labels", "other pixels", "damaged label"}) {
    write_cifar(folder, name);
  }
  std::string bytes = cifar_file(5, 50);
  bytes[3 * 3073] = 9;  // of the last sample, which is not read
  folder.write("other labels/data_batch_5.bin", bytes);
  bytes[3 * 3073] = 10;  // no label
  folder.write("damaged label/data_batch_5.bin", bytes);
  folder.write("other pixels/data_batch_1.bin", cifar_file(1, 11));
  folder.write("there/batches.meta.txt", "a\nb\nc\nd\ne\nf\ng\nh\ni\nj\n");
  const std::uint64_t here = of("cifar10:" + folder.path("here"));
  EXPECT_EQ(of("cifar10:" + folder.path("there")), here);
  EXPECT_EQ(open_dataset("cifar10:" + folder.path("here"), {.reading = Reading::read})->fingerprint(), here);
  std::set<std::uint64_t> all{here};
  for (const std::string name : {"other labels", "other pixels", "damaged label"}) {
    EXPECT_TRUE(all.insert(of("cifar10:" + folder.path(name))).second) << name;
  }
}

std::string big_endian(std::uint32_t value) {
  std::string bytes;
  for (int shift = 24; shift >= 0; shift -= 8) {
    bytes += static_cast<char>(value >> shift);
  }
  return bytes;
}

TEST(Fingerprint, TellsIdxFilesOfOneSizeApart) {
  TemporaryFolder folder;
  const auto fingerprint = [&](const std::string& name, const std::string& pixels,
                               const std::string& labels) {
    folder.write(name + "/train-images-idx3-ubyte",
                 big_endian(0x803) + big_endian(20) + big_endian(1) + big_endian(2) + pixels);
    folder.write(name + "/train-labels-idx1-ubyte", big_endian(0x801) + big_endian(20) + labels);
    return of("idx:" + folder.path(name));
  };
  std::string pixels(40, 'p'), labels(20, 3);
  const std::uint64_t first = fingerprint("digits", pixels, labels);
  EXPECT_EQ(fingerprint("fashion", pixels, labels), first) << "with other names of classes";
  pixels[0] = 'q';
  EXPECT_NE(fingerprint("pixels", pixels, labels), first);
  pixels[0] = 'p';
  labels[4] = 2;
  EXPECT_NE(fingerprint("labels", pixels, labels), first);
}

// Files and parts

const std::string kJpeg = "\xFF\xD8\xFF\xE0 some JPEG ";

TEST(Fingerprint, OfFilesCoversNamesLabelsAndBytes) {
  TemporaryFolder folder;
  for (const std::string name : {"here", "there", "changed"}) {
    folder.write(name + "/cat/1.jpg", kJpeg + "1");
    folder.write(name + "/dog/2.jpg", kJpeg + (name == "changed" ? "3" : "2"));
    folder.write(name + "/list.csv", "path,label\ncat/1.jpg,0\ndog/2.jpg,1\n");
    folder.write(name + "/other.csv", "cat/1.jpg,0\ndog/2.jpg,0\n");
  }
  folder.write("renamed/cat/1.jpg", kJpeg + "1");
  folder.write("renamed/dog/3.jpg", kJpeg + "2");
  const std::uint64_t here = of("images:" + folder.path("here"));
  EXPECT_EQ(of("images:" + folder.path("there")), here);
  EXPECT_EQ(of("list:" + folder.path("here/list.csv")), here);
  EXPECT_NE(of("images:" + folder.path("changed")), here);
  EXPECT_NE(of("list:" + folder.path("changed/list.csv")), here);
  EXPECT_NE(of("images:" + folder.path("renamed")), here);
  EXPECT_NE(of("list:" + folder.path("here/other.csv")), here);
  const std::string names("cat/1.jpg\0dog/2.jpg\0", 20);
  EXPECT_EQ(open_dataset("images:" + folder.path("changed"))->fingerprint(1),
            Hash().add(2).add(names).add(0).add(1).value());
}

TEST(Fingerprint, OfAListOfAbsolutePathsDoesNotDependOnWhereTheFilesLie) {
  TemporaryFolder folder;
  const auto list = [&](const std::string& name, const std::string& second) {
    const std::string pictures = folder.path(name + "/pictures");
    folder.write(name + "/pictures/1.jpg", kJpeg + "1");
    folder.write(name + "/pictures/" + second, kJpeg + "2");
    folder.write(name + "/list.csv", pictures + "/1.jpg,0\n" + pictures + "/" + second + ",1\n");
    return of("list:" + folder.path(name + "/list.csv"));
  };
  const std::uint64_t here = list("here", "2.jpg");
  EXPECT_EQ(list("there", "2.jpg"), here);
  EXPECT_NE(list("renamed", "3.jpg"), here);
}

TEST(Fingerprint, OfPartsDoesNotDependOnHowTheyWereCut) {
  TemporaryFolder folder;
  const auto sample = [](const std::string& key, const std::string& label, const std::string& bytes) {
    return tar_member(key + ".cls", label) + tar_member(key + ".jpg", kJpeg + bytes);
  };
  folder.write("one.tar", sample("0", "1", "a") + sample("1", "0", "bb") + tar_end());
  folder.write("two-0.tar", sample("x", "1", "a") + tar_end());
  folder.write("two-1.tar", sample("y", "0", "bb") + tar_end());
  folder.write("changed.tar", sample("0", "1", "a") + sample("1", "0", "bc") + tar_end());
  folder.write("relabeled.tar", sample("0", "1", "a") + sample("1", "1", "bb") + tar_end());
  folder.write("folders.tar",
               tar_member("b/0.jpg", kJpeg + "a") + tar_member("a/1.jpg", kJpeg + "bb") + tar_end());
  const std::uint64_t one = of("tar:" + folder.path("one.tar"));
  EXPECT_EQ(of("tar:" + folder.path("two-*.tar")), one);
  EXPECT_EQ(of("images:" + folder.path("folders.tar")), one);
  EXPECT_NE(of("tar:" + folder.path("changed.tar")), one);
  EXPECT_NE(of("tar:" + folder.path("relabeled.tar")), one);
  // Of samples that are not read, labels and sizes count.
  const auto of_twenty = [&](const std::string& last_label, const std::string& last_bytes) {
    std::string archive;
    for (int i = 0; i < 20; ++i) {
      archive += sample(std::to_string(i), i == 19 ? last_label : "1", i == 19 ? last_bytes : "a");
    }
    folder.write("twenty.tar", archive + tar_end());
    return of("tar:" + folder.path("twenty.tar"));
  };
  const std::uint64_t twenty = of_twenty("1", "a");
  EXPECT_NE(of_twenty("0", "a"), twenty);
  EXPECT_NE(of_twenty("1", "aa"), twenty);
  EXPECT_EQ(of_twenty("1", "b"), twenty);
  // By the first definition a change of bytes was not seen.
  const auto first = [&](const std::string& name) {
    return open_dataset("tar:" + folder.path(name))->fingerprint(1);
  };
  EXPECT_EQ(first("changed.tar"), first("one.tar"));
  EXPECT_EQ(
      first("one.tar"),
      Hash().add("tar").add(2).add(1536).add(16).add(1).add(3584).add(17).add(0).add("0").add("1").value());
}

}  // namespace
}  // namespace millrace
