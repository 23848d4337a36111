#!/bin/sh
# Stand-in for nvidia-smi in test containers: one card, the fields that a query names, in their order.
# shellcheck disable=SC2154 # the hook writes the card's settings into the next line
#SETTINGS

query='' format=''
while [ $# -gt 0 ]; do
  case $1 in
    --query-gpu=*) query=${1#*=} ;;
    --format=*) format=${1#*=} ;;
    -L | --list-gpus) echo "GPU 0: $name (UUID: $uuid)"; exit 0 ;;
    -i | --id) shift ;;
    --id=*) ;;
    *) echo "Invalid combination of input arguments. Please run 'nvidia-smi -h' for help."; exit 1 ;;
  esac
  shift
done
if [ -z "$query" ]; then
  echo "NVIDIA-SMI $driver    Driver Version: $driver    CUDA Version: $cuda"
  echo "0  $name"
  exit 0
fi

unit() { case ",$format," in *,nounits,*) ;; *) printf '%s' "$1" ;; esac; }
header='' row=''
rest=$query,
while [ -n "$rest" ]; do
  field=${rest%%,*} rest=${rest#*,}
  field=${field# }
  title=$field
  case $field in
    index) value=0 ;;
    count) value=1 ;;
    name | gpu_name) value=$name ;;
    uuid | gpu_uuid) value=$uuid ;;
    driver_version) value=$driver ;;
    memory.total) value=$memory$(unit ' MiB'); title="memory.total [MiB]" ;;
    memory.used) value=1$(unit ' MiB'); title="memory.used [MiB]" ;;
    memory.free) value=$((memory - 1))$(unit ' MiB'); title="memory.free [MiB]" ;;
    temperature.gpu) value=31 ;;
    utilization.gpu) value=0$(unit ' %'); title="utilization.gpu [%]" ;;
    pci.bus_id | gpu_bus_id) value=00000000:01:00.0 ;;
    compute_mode) value=Default ;;
    persistence_mode) value=Disabled ;;
    mig.mode.current | ecc.mode.current) value='[N/A]' ;;
    power.limit) value=350.00$(unit ' W'); title="power.limit [W]" ;;
    pstate) value=P8 ;;
    compute_cap)
      if [ "${driver%%.*}" -lt 510 ]; then
        echo "Field \"$field\" is not a valid field to query."
        echo
        exit 2
      fi
      value=$capability
      ;;
    *) echo "Field \"$field\" is not a valid field to query."; echo; exit 2 ;;
  esac
  row="$row${row:+, }$value" header="$header${header:+, }$title"
done
case ",$format," in *,noheader,*) ;; *) echo "$header" ;; esac
echo "$row"
