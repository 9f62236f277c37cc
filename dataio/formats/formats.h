#pragma once

#include <initializer_list>
#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "dataio/dataset.h"

namespace millrace {

/// Takes ",NAME=VALUE" off the end of `where` for as long as NAME is one of `known`.
std::map<std::string, std::string> take_options(std::string& where,
                                                std::initializer_list<std::string_view> known);

// One function a format, each in a file of its own; the list behind them is what `open_dataset` knows.

/// The official CIFAR-10 in `folder` or its subfolder of the official name: the binary batches or Python's
/// pickles.
std::unique_ptr<Dataset> open_cifar10(const std::string& folder, const OpenOptions& options);

/// Likewise CIFAR-100, with its fine labels; "DIR,labels=coarse" gives the 20 coarse ones.
std::unique_ptr<Dataset> open_cifar100(const std::string& where, const OpenOptions& options);

/// A folder of class folders of JPEG and PNG files, at any depth in them, or one flat folder of images: a
/// single class; or a tar file of folders.
///
/// Classes and files come in the order of their names' bytes; hidden ones are skipped. A file counts as an
/// image by its ending or else by its first bytes; how it is decoded follows from its first bytes alone, when
/// it is read.
std::unique_ptr<Dataset> open_images(const std::string& where, const OpenOptions& options);

/// JPEG and PNG files in one tar file, read in place and in the archive's order. Each folder in it is a
/// class, in the order of their names' bytes, named from where the folders differ.
std::unique_ptr<Dataset> open_image_tar(const std::string& path, const OpenOptions& options);

/// The tar files of WebDataset that match a shell pattern. A sample is the consecutive files of one name with
/// an ending jpg, jpeg or png and one of cls (a number) or json (an object with "label" or "cls"). A
/// classes.txt beside the files names the classes, one a line.
std::unique_ptr<Dataset> open_webdataset(const std::string& pattern, const OpenOptions& options);

/// The TFRecord files that a shell pattern names; see tfrecord.h. ",image=NAME", ",label=NAME" and
/// ",text=NAME" behind the pattern name the features.
std::unique_ptr<Dataset> open_tfrecord(const std::string& where, const OpenOptions& options);

/// The image files that a CSV file names: path,label a line, paths relative to it. See csv.h for quotes. A
/// first line like "path,label" is passed over. Labels are numbers, or else names, whose order is that of
/// their bytes.
std::unique_ptr<Dataset> open_list(const std::string& path, const OpenOptions& options);

/// Images and labels in MNIST's format, gzipped or not, held in memory.
std::unique_ptr<Dataset> open_idx(const std::string& folder, const OpenOptions& options);

/// The records files that `pattern` names (dataio/glob.h); see dataio/formats/records.h.
std::unique_ptr<Dataset> open_records(const std::string& pattern, const OpenOptions& options);

/// `samples` drawn shapes and textures in ten classes, 32x32 RGB, the same on every machine. The test set
/// shares no random number with the training set.
std::unique_ptr<Dataset> open_synthetic(const std::string& samples, const OpenOptions& options);

/// A kind of data set: `kind` is the word before the colon; `open` gets what follows it.
struct DatasetKind {
  std::string_view kind, usage;
  std::unique_ptr<Dataset> (*open)(const std::string& where, const OpenOptions& options);
};
inline constexpr DatasetKind kDatasetKinds[] = {
    {"images", "images:DIR, images:FILE.tar", open_images},
    {"list", "list:FILE.csv", open_list},
    {"records", "records:GLOB", open_records},
    {"tar", "tar:GLOB", open_webdataset},
    {"tfrecord", "tfrecord:GLOB", open_tfrecord},
    {"cifar10", "cifar10:DIR", open_cifar10},
    {"cifar100", "cifar100:DIR", open_cifar100},
    {"idx", "idx:DIR", open_idx},
    {"synthetic", "synthetic:N", open_synthetic},
};

}  // namespace millrace
