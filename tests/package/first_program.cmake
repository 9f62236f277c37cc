# Writes the two ```cpp blocks of README to FOLDER as first.cpp and own_network.cpp, and its ```cmake block as CMakeLists.txt,
# with a line for the second.
file(READ ${README} text)

# The first block of `language` in `text`, which goes on behind it.
macro(take_block language variable)
  string(FIND "${text}" "```${language}\n" begin)
  if(begin EQUAL -1)
    message(FATAL_ERROR "${README} lacks a ```${language} block for ${variable}")
  endif()
  string(SUBSTRING "${text}" ${begin} -1 text)
  string(REGEX REPLACE "^```${language}\n" "" text "${text}")
  string(FIND "${text}" "```" end)
  string(SUBSTRING "${text}" 0 ${end} ${variable})
  string(SUBSTRING "${text}" ${end} -1 text)
endmacro()

take_block(cpp first)
take_block(cpp own_network)
take_block(cmake project)
file(WRITE ${FOLDER}/first.cpp "${first}")
file(WRITE ${FOLDER}/own_network.cpp "${own_network}")
file(WRITE ${FOLDER}/CMakeLists.txt "cmake_minimum_required(VERSION 3.25)
project(first LANGUAGES CXX)
${project}
add_executable(own_network own_network.cpp)
target_link_libraries(own_network PRIVATE millrace::millrace)
")
