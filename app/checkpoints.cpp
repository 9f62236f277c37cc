#include "app/checkpoints.h"

#include "app/options.h"

namespace millrace::app {

namespace fs = std::filesystem;

void CheckpointChoice::add_to(CLI::App& command) {
  CLI::Option* where = command.add_option("--checkpoint", folder, "Write checkpoints into this folder");
  command.add_option("--checkpoint-every", every, "How often: 30s, 500steps, 1epoch")->needs(where);
  command.add_option("--keep", keep, "Checkpoints that are kept")->check(whole_number(1))->needs(where);
  command.add_option(
      "--resume", from,
      "Go on from a checkpoint, or from the newest one in a folder; auto: from the newest one in "
      "--checkpoint, if there is one");
}

void CheckpointChoice::check() const {
  CheckpointInterval::parse(every);
  if (from == "auto" && folder.empty()) {
    throw InputError("--resume auto takes the newest checkpoint of --checkpoint; name its folder");
  }
  const std::vector<fs::path> there = checkpoints_in(folder);
  if (from.empty() && !there.empty()) {
    throw InputError(
        "--checkpoint {}: holds checkpoints of an earlier run, the newest {}; go on with --resume auto, or "
        "name "
        "another folder",
        folder.string(), there.back().filename().string());
  }
}

std::unique_ptr<Checkpointer> CheckpointChoice::writer(const RunDescription& run,
                                                       const ModelDescription& model, const Say& say) const {
  if (folder.empty()) {
    return nullptr;
  }
  return std::make_unique<Checkpointer>(CheckpointerOptions{.folder = folder,
                                                            .every = CheckpointInterval::parse(every),
                                                            .keep = keep,
                                                            .run = run,
                                                            .metadata = to_metadata(model),
                                                            .say = say});
}

fs::path CheckpointChoice::resume(const RunDescription& run, Trainer& trainer, Loader& loader,
                                  const Say& say) const {
  if (!resumes()) {
    return {};
  }
  const fs::path place = from == "auto" ? folder : fs::path(from).lexically_normal();
  const auto found = newest_checkpoint(place, say);
  if (found) {
    millrace::resume(found->checkpoint, run, trainer, loader, say);
    return found->path;
  }
  if (from != "auto") {
    throw InputError("--resume {}: no whole checkpoint is there; expected a folder step-..., or one of them",
                     from);
  }
  say(fmt::format("no whole checkpoint in {}: this run starts new", place.string()));
  return {};
}

}  // namespace millrace::app
