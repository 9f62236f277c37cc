// A program's check of the processor comes before the initializers of shared libraries too: where these call
// an inline function that the program has as well, of std::vector, say, they get the program's. Shared
// objects cannot have this section, so the linker option `-u` brings it into programs alone.
#ifdef __x86_64__

extern "C" {
void millrace_check_processor();
extern void (*const millrace_check_processor_first)();
[[gnu::section(".preinit_array"),
  gnu::used]] void (*const millrace_check_processor_first)() = millrace_check_processor;
}

#endif
