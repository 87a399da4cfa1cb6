"""The 200 classes of ScanNet200 and its head, common and tail groups, as data.

Source: Rozenberszki 2022, arXiv:2204.07761. The training index of a class is its position in the list.
"""

from __future__ import annotations

from pointseg.datasets.classes import ClassList, distinct_colors

# id in scannetv2-labels.combined.tsv : name / h(ead), c(ommon) or t(ail), by how often it is labelled.
_LIST = """
1:wall/h; 2:chair/h; 3:floor/h; 4:table/h; 5:door/h; 6:couch/h; 7:cabinet/h; 8:shelf/h;
9:desk/h; 10:office chair/h; 11:bed/h; 13:pillow/h; 14:sink/h; 15:picture/h; 16:window/h;
17:toilet/h; 18:bookshelf/h; 19:monitor/h; 21:curtain/h; 22:book/h; 23:armchair/h; 24:coffee
table/h; 26:box/h; 27:refrigerator/h; 28:lamp/h; 29:kitchen cabinet/h; 31:towel/h; 32:clothes/h;
33:tv/h; 34:nightstand/h; 35:counter/h; 36:dresser/h; 38:stool/h; 39:cushion/c; 40:plant/h;
41:ceiling/h; 42:bathtub/h; 44:end table/c; 45:dining table/c; 46:keyboard/c; 47:bag/c;
48:backpack/h; 49:toilet paper/c; 50:printer/c; 51:tv stand/h; 52:whiteboard/h; 54:blanket/c;
55:shower curtain/h; 56:trash can/h; 57:closet/h; 58:stairs/h; 59:microwave/c; 62:stove/h;
63:shoe/c; 64:computer tower/c; 65:bottle/c; 66:bin/c; 67:ottoman/c; 68:bench/c; 69:board/h;
70:washing machine/h; 71:mirror/h; 72:copier/h; 73:basket/c; 74:sofa chair/h; 75:file cabinet/h;
76:fan/c; 77:laptop/c; 78:shower/h; 79:paper/t; 80:person/c; 82:paper towel dispenser/c;
84:oven/c; 86:blinds/h; 87:rack/c; 88:plate/t; 89:blackboard/h; 90:piano/c; 93:suitcase/c;
95:rail/c; 96:radiator/h; 97:recycling bin/h; 98:container/c; 99:wardrobe/h; 100:soap
dispenser/t; 101:telephone/c; 102:bucket/t; 103:clock/t; 104:stand/c; 105:light/c; 106:laundry
basket/c; 107:pipe/c; 110:clothes dryer/h; 112:guitar/t; 115:toilet paper holder/t; 116:seat/c;
118:speaker/t; 120:column/c; 121:bicycle/c; 122:ladder/c; 125:bathroom stall/h; 128:shower
wall/h; 130:cup/t; 131:jacket/c; 132:storage bin/c; 134:coffee maker/c; 136:dishwasher/c;
138:paper towel roll/t; 139:machine/c; 140:mat/c; 141:windowsill/c; 145:bar/t; 148:toaster/t;
154:bulletin board/c; 155:ironing board/t; 156:fireplace/c; 157:soap dish/t; 159:kitchen
counter/h; 161:doorframe/h; 163:toilet paper dispenser/t; 165:mini fridge/c; 166:fire
extinguisher/t; 168:ball/t; 169:hat/t; 170:shower curtain rod/t; 177:water cooler/c; 180:paper
cutter/t; 185:tray/t; 188:shower door/c; 191:pillar/c; 193:ledge/c; 195:toaster oven/t;
202:mouse/t; 208:toilet seat cover dispenser/t; 213:furniture/c; 214:cart/c; 221:storage
container/t; 229:scale/t; 230:tissue box/t; 232:light switch/t; 233:crate/t; 242:power outlet/t;
250:decoration/c; 261:sign/t; 264:projector/t; 276:closet door/c; 283:vacuum cleaner/c;
286:candle/t; 300:plunger/t; 304:stuffed animal/t; 312:headphones/t; 323:dish rack/c;
325:broom/t; 331:guitar case/t; 342:range hood/c; 356:dustpan/t; 370:hair dryer/t; 392:water
bottle/t; 395:handicap bar/t; 399:purse/t; 408:vent/t; 417:shower floor/t; 488:water pitcher/t;
540:mailbox/h; 562:bowl/t; 570:paper bag/t; 572:alarm clock/t; 581:music stand/t; 609:projector
screen/c; 748:divider/c; 776:laundry detergent/t; 1156:bathroom counter/c; 1163:object/h;
1164:bathroom vanity/h; 1165:closet wall/h; 1166:laundry hamper/c; 1167:bathroom stall door/c;
1168:ceiling light/c; 1169:trash bin/c; 1170:dumbbell/t; 1171:stair rail/h; 1172:tube/t;
1173:bathroom cabinet/c; 1174:cd case/t; 1175:closet rod/t; 1176:coffee kettle/t;
1178:structure/c; 1179:shower head/t; 1180:keyboard piano/t; 1181:case of water bottles/t;
1182:coat rack/t; 1183:storage organizer/c; 1184:folded chair/t; 1185:fire alarm/t; 1186:power
strip/t; 1187:calendar/t; 1188:poster/t; 1189:potted plant/c; 1190:luggage/t; 1191:mattress/c
"""

_ENTRIES = tuple(entry.strip().rpartition("/") for entry in " ".join(_LIST.split()).split(";"))

RAW_IDS: tuple[int, ...] = tuple(int(head.split(":")[0]) for head, _, _ in _ENTRIES)
"""Ids of the classes in label files and submissions, by training index."""


def _group(letter: str) -> tuple[int, ...]:
    return tuple(index for index, (_, _, group) in enumerate(_ENTRIES) if group == letter)


CLASSES = ClassList(
    names=tuple(head.split(":")[1] for head, _, _ in _ENTRIES),
    colors=distinct_colors(len(_ENTRIES)),
    groups={"head": _group("h"), "common": _group("c"), "tail": _group("t")},
)
"""The classes; mean IoU is also reported for each group."""
